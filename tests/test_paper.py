"""Figures of the paper: their numbers against other ways to them, files, the command, and the committed copies."""

import inspect
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from scipy import stats

import lsc_ext as lsc
from lsc_ext.cli import main
from lsc_ext.files import write_json
from lsc_ext.paper import FIGURE_GROUPS, FIGURES, chosen_figures, run_figure
from lsc_ext.paper.covariance import decaying_covariance
from lsc_ext.paper.dominance import _inputs, _radii, covariance_dominance
from lsc_ext.paper.drawing import digest
from lsc_ext.paper.grid import gradient_grid
from lsc_ext.paper.growth import binomial_growth
from lsc_ext.paper.pascal import pascal_profiles
from lsc_ext.paper.profiles import network_profiles
from lsc_ext.paper.sequences import pixels, rows
from lsc_ext.plot import new_figure, save_figure

ROOT = Path(__file__).parent.parent
SMALL = {
    "grid": {"time_steps": 5, "layers": 3, "draws": 2},
    "growth": {"time_steps": 400, "layers": 9},
    "pascal": {"layers": 3, "time_steps": 9, "batch_size": 2},
    "profiles": {
        "layers": 2,
        "time_steps": 6,
        "hidden_size": 5,
        "batch_size": 3,
        "targets": [0.5],
        "steps": 2,
        "train_steps": 2,
    },
    "covariance": {"layers": 2, "time_steps": 5, "hidden_size": 4, "batch_size": 6},
    "dominance": {"time_steps": 6, "hidden_size": 3, "batch_size": 4, "seeds": 2},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_writes_its_numbers_and_its_picture(name, tmp_path):
    data, files = run_figure(FIGURES[name], tmp_path, seed=3, **SMALL[name])
    assert [file.name for file in files] == [f"{name}.json", f"{name}.svg"]
    assert json.loads(files[0].read_text()) == data
    assert data["figure"] == name
    assert data["config"].keys() == set(FIGURES[name].options)
    assert all(data["findings"])
    picture = files[1].read_text()
    assert picture.endswith("</svg>\n")
    assert digest(data) in picture
    # Any change of a number is a change of the digest, and drawing again changes nothing.
    assert digest({**data, "figure": "another"}) not in picture


def test_a_picture_may_be_png_and_is_the_same_every_time(tmp_path):
    for kind in ("png", "svg"):
        first, second = (
            run_figure(FIGURES["growth"], tmp_path / str(i), file_format=kind, **SMALL["growth"])[1] for i in (0, 1)
        )
        assert first[1].read_bytes() == second[1].read_bytes()
        assert first[1].read_bytes().startswith(b"\x89PNG") == (kind == "png")


@pytest.mark.parametrize("name", [name for name in sorted(FIGURES) if "seed" in FIGURES[name].options])
def test_a_seed_gives_its_numbers_and_another_seed_others(name):
    first, again, other = (FIGURES[name].compute(seed=seed, **SMALL[name]) for seed in (0, 0, 1))
    assert json.dumps(first) == json.dumps(again)
    assert {**other, "config": first["config"]} != first


@pytest.mark.parametrize(("steps", "layers"), [(6, 4), (3, 3), (9, 2)])
def test_drawn_paths_are_different_walks_of_the_grid(steps, layers):
    data = gradient_grid(time_steps=steps, layers=layers, draws=50)
    for grid in data["grids"]:
        slope = -1 if grid["grid"] == "parallelogram" else 0
        allowed = {(-1, 0), (slope, -1)}
        moves = steps - 1 if slope else steps + layers - 2
        expected = math.comb(moves, layers - 1)
        assert grid["path_count"] == expected
        assert len({tuple(path) for path in grid["paths"]}) == min(50, expected)
        for path in grid["paths"]:
            assert path[0] == (steps - 1, layers - 1)
            assert path[-1] == (0, 0)
            assert {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(path)} <= allowed


def test_growth_is_that_of_exact_path_counts():
    for curve, count in zip(
        binomial_growth(time_steps=2000, layers=40)["curves"],
        (lambda t: math.comb(t + 5, 5), lambda d: math.comb(5 + d, 5), lambda t: math.comb(t + t // 100, t)),
        strict=True,
    ):
        assert curve["size"][-1] in (2000, 40)
        expected = [math.log10(count(size)) for size in curve["size"]]
        assert curve["log10_count"] == pytest.approx(expected, rel=1e-5)


def test_the_pascal_figure_shows_gradients_that_are_the_closed_form():
    data = pascal_profiles(layers=4, time_steps=20, batch_size=2, targets=(0.5, "unbalanced"))
    half, unbalanced = data["arms"]
    assert half["gradient"] == pytest.approx(lsc.theory.gradient_profile(0.5, 0.5, 4, 20).tolist(), rel=1e-5)
    assert (unbalanced["rho_time"], unbalanced["rho_depth"]) == pytest.approx((20 / 24, 4 / 24))
    assert max(arm["largest_relative_error"] for arm in data["arms"]) < 1e-13


def test_the_relu_networks_have_hes_scale_times_the_radius():
    # A positive network is linear, so the profile of one layer doubles with rho_depth and knows no other difference.
    first, second = (
        pascal_profiles(layers=1, time_steps=1, batch_size=3, targets=(t,))["arms"][0]["relu_gradient"][0]
        for t in (0.5, 1.0)
    )
    assert second == pytest.approx(2 * first, rel=1e-5)


def test_profiles_are_gradients_of_the_networks_that_torch_has():
    sizes = {"layers": 2, "time_steps": 7, "hidden_size": 6, "batch_size": 3}
    data = network_profiles(**sizes, targets=(), train_steps=0, seed=4)
    torch.manual_seed(4)
    model = torch.nn.GRU(28, 6, 2)
    draw = generator(4)
    rows("normal", 7, 12, draw)  # what pre-training would see
    x = rows("normal", 7, 3, draw).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[0].sum(), x)
    (arm,) = data["networks"]["gru"]
    assert arm["name"] == "default"
    assert arm["after_training"] is None
    found = arm["before_training"]
    expected = gradient.double().norm(dim=2).mean(1)
    assert found["gradient"] == pytest.approx(expected.tolist(), rel=1e-4)
    assert found["largest_over_smallest"] == pytest.approx(float(expected[:6].max() / expected[:6].min()), rel=1e-4)
    assert found["first_over_last"] == pytest.approx(float(expected[0] / expected[5]), rel=1e-4)


def test_profiles_pretrain_to_each_target_and_train():
    sizes = {"layers": 2, "time_steps": 8, "hidden_size": 16, "batch_size": 12}
    data = network_profiles(architectures=("rnn_relu",), targets=(0.4, 0.6), train_steps=20, **sizes)
    default, low, high = data["networks"]["rnn_relu"]
    assert [arm["name"] for arm in (default, low, high)] == ["default", "rho = 0.4", "rho = 0.6"]
    for arm, target in ((low, 0.4), (high, 0.6)):
        assert arm["pretraining"]["converged"]
        means = arm["before_training"]["mean_radius"]
        assert means == {"time": pytest.approx(target, abs=0.08), "depth": pytest.approx(target, abs=0.08)}
        assert arm["after_training"]["last_loss"] < arm["after_training"]["first_loss"]
        assert arm["after_training"]["gradient"] != arm["before_training"]["gradient"]
    assert default["pretraining"] is None


def test_covariance_curves_are_scipys_of_the_networks_radii():
    data = decaying_covariance(architectures=("gru", "lstm"), time_steps=6, hidden_size=5, batch_size=9, seed=2, skip=2)
    x = rows("normal", 6, 9, generator(2))
    for name, build in (("gru", torch.nn.GRU), ("lstm", torch.nn.LSTM)):
        torch.manual_seed(2)
        model = build(28, 5, 2)
        with torch.no_grad():
            radius = lsc.radii(model, x, directions=("time",))["time"].radius.double()
        for layer in range(2):
            (curve,) = (c for c in data["curves"] if (c["architecture"], c["layer"]) == (name, layer))
            expected = [stats.pearsonr(radius[layer, t], radius[layer, 2]) for t in range(2, 6)]
            assert curve["correlation"] == pytest.approx([e.statistic for e in expected], abs=2e-3)
            assert curve["p_value"] == pytest.approx([e.pvalue for e in expected], abs=2e-3)
            assert curve["covariance"][0] == pytest.approx(float(radius[layer, 2].var()), rel=1e-2)


def test_covariance_of_a_pretrained_network_has_the_targets_radius():
    sizes = {"time_steps": 8, "hidden_size": 12, "batch_size": 16}
    data = decaying_covariance(architectures=("rnn_relu",), targets=(0.5,), **sizes)
    assert [curve["target"] for curve in data["curves"]] == ["0.5", "0.5"]
    assert [curve["mean_radius"] for curve in data["curves"]] == pytest.approx([0.5, 0.5], abs=0.08)


def test_radii_that_do_not_differ_are_said_not_to_differ():
    data = decaying_covariance(architectures=("lru",), layers=1, time_steps=4, hidden_size=3, batch_size=4)
    (curve,) = data["curves"]
    assert curve["significant"] is None
    assert "do not differ" in data["findings"][0]


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_dominance_measures_the_next_output_by_the_input_before(name):
    x = _inputs("normal", 5, 3, 4, 7)
    assert x.shape == (5, 3, 4)
    assert x.sum(2).tolist() == [pytest.approx([1] * 3, rel=1e-5)] * 5
    found = _radii(name, 4, x, 7)
    torch.manual_seed(7)
    model = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[name](4, 4)
    for t, b in itertools.product(range(4), range(3)):
        whole = torch.autograd.functional.jacobian(lambda z: model(z)[0], x[:, b])
        radius = torch.linalg.eigvals(whole[t + 1, :, t]).abs().max()
        assert float(found[t, b]) == pytest.approx(float(radius), rel=1e-3)


def test_dominance_bars_are_means_over_seeds():
    data = covariance_dominance(architectures=("gru",), time_steps=6, hidden_size=3, batch_size=4, seeds=3, seed=5)
    (bar,) = data["bars"]
    expected = [lsc.theory.interactions(_radii("gru", 3, _inputs("normal", 6, 4, 3, s), s)) for s in (5, 6, 7)]
    assert bar["mean"] == pytest.approx(torch.stack(expected).mean(0).tolist(), rel=1e-5)
    assert bar["std"] == pytest.approx(torch.stack(expected).std(0).tolist(), rel=1e-4)


def test_rows_of_images_follow_each_other_and_pixels_are_of_the_wanted_size():
    x = rows("digits", 20, 3, generator())
    images = lsc.data.load_images("digits").x
    assert x.shape == (20, 3, 8)
    for b, block in itertools.product(range(3), range(2)):
        piece = x[8 * block : 8 * block + 8, b].unsqueeze(1)
        assert (images == piece).all(2).all(0).any()
    small = pixels("digits", 16, 5, generator())
    assert small.shape == (16, 5)
    assert 0 <= small.min() <= small.max() <= 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradient_grid(time_steps=3, layers=4), "time_steps: expected at least 4, got 3"),
        (lambda: gradient_grid(draws=0), "draws: expected at least 1, got 0"),
        (lambda: binomial_growth(time_steps=100), "time_steps: expected at least 200"),
        (lambda: pascal_profiles(targets=()), "targets: expected at least one"),
        (lambda: pascal_profiles(targets=("half",)), "targets: expected numbers or 'unbalanced', got 'half'"),
        (lambda: network_profiles(architectures=("mlp",)), "architectures: expected recurrent ones"),
        (lambda: network_profiles(train_steps=-1), "train_steps: expected at least 0, got -1"),
        (lambda: network_profiles(data="shd"), "data: expected one of normal, digits, mnist, got 'shd'"),
        (lambda: decaying_covariance(batch_size=2), "batch_size: expected at least 3, got 2"),
        (lambda: decaying_covariance(skip=4, time_steps=5), "time_steps: expected at least 6, got 5"),
        (lambda: decaying_covariance(architectures=("feed_forward_relu",)), "architectures: expected recurrent"),
        (lambda: covariance_dominance(architectures=("lru",)), "architectures: expected recurrent cells, got 'lru'"),
        (lambda: covariance_dominance(time_steps=4), "time_steps: expected at least 5, got 4"),
        (lambda: covariance_dominance(time_steps=12, data="digits"), "time_steps: expected a square number"),
        (lambda: run_figure(FIGURES["grid"], ".", file_format="pdf"), "file_format: expected one of png, svg"),
        (lambda: chosen_figures(["fig9"], []), "figure: expected names among grid, growth"),
        (lambda: chosen_figures(["growth"], ["seeds"]), "seeds: expected an option of growth, got one of dominance"),
        (lambda: save_figure(new_figure(1)[0], "a.pdf"), "path: expected a file that ends in .png or .svg"),
    ],
)
def test_what_makes_no_figure_is_refused(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="expected") as caught:
        call()
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_groups_stand_for_their_figures_in_the_tables_order():
    assert [f.name for f in chosen_figures(["fig1"], ["targets"])] == ["grid", "growth", "pascal", "profiles"]
    assert [f.name for f in chosen_figures(["dominance", "grid", "grid"], [])] == ["grid", "dominance"]
    assert FIGURE_GROUPS["all"] == tuple(FIGURES)


def test_the_command_lists_figures(capsys):
    assert main(["paper", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == {name: figure.element for name, figure in FIGURES.items()}
    assert main(["paper"]) == 0
    assert "Figure 1b" in capsys.readouterr().out


def test_the_command_computes_with_the_given_options(tmp_path, capsys):
    sizes = ["--layers", "2", "--time-steps", "6", "--hidden-size", "3", "--batch-size", "5", "--seed", "9"]
    sizes += ["--architectures", "gru", "--targets", "0.5", "unbalanced", "--steps", "2", "--train-steps", "0"]
    options = ["--folder", str(tmp_path / "new"), "--format", "png", "--data", "digits", *sizes]
    assert main(["paper", "profiles", "pascal", *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["pascal", "profiles"]
    config = report["profiles"]["config"]
    expected = {"layers": 2, "time_steps": 6, "hidden_size": 3, "batch_size": 5, "seed": 9, "data": "digits"}
    assert {name: config[name] for name in expected} == expected
    assert config["targets"] == ["0.5", "unbalanced"]
    assert (config["steps"], config["train_steps"]) == (2, 0)
    for name in ("pascal", "profiles"):
        assert report[name]["files"] == [str(tmp_path / "new" / f"{name}.{kind}") for kind in ("json", "png")]
        assert all(Path(file).is_file() for file in report[name]["files"])
    assert main(["paper", "grid", "--draws", "1", "--folder", str(tmp_path)]) == 0
    assert "grid.svg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig2x"], ["figure", "grid", "fig2x"]),
        (["growth", "--hidden-size", "3"], ["hidden_size", "expected an option of growth", "profiles"]),
        (["pascal", "--targets", "half"], ["--targets", "number or 'unbalanced'", "half"]),
        (["grid", "--layers", "0"], ["layers", "at least 2", "0"]),
    ],
)
def test_bad_arguments_of_the_command_exit_with_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["paper", *arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_every_figure_is_on_the_page_with_its_function_and_a_test_that_exists():
    page = (ROOT / "docs" / "paper.md").read_text()
    for name, figure in FIGURES.items():
        assert f"paper/{name}.svg" in page
        assert f"`{figure.compute.__module__.rpartition('.')[2]}.py`" in page
    lines = [line for line in page.splitlines() if "::" in line]
    assert len(lines) > 10
    for line in lines:
        for file, test in (part.split("::") for part in line.split("`") if "::" in part):
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), line


def test_the_page_has_the_flatness_of_the_committed_profiles():
    page = (ROOT / "docs" / "paper.md").read_text()
    data = json.loads((ROOT / "docs" / "paper" / "profiles.json").read_text())
    rows = {
        "before_training": "| normal numbers, seed 0 (the picture) |",
        "after_training": "| normal numbers, seed 0, after 60 steps of training |",
    }
    for moment, row in rows.items():
        found = [float(f"{arm[moment]['largest_over_smallest']:.3g}") for arm in data["networks"]["gru"]]
        (line,) = (line for line in page.splitlines() if line.startswith(row))
        assert [float(number) for number in line.removeprefix(row).strip(" |").split("|")] == found


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_the_committed_figure_is_drawn_from_its_committed_numbers(name, tmp_path):
    """Small, of the default sizes, and the picture of just these numbers."""
    folder = ROOT / "docs" / "paper"
    picture, numbers = folder / f"{name}.svg", json.loads((folder / f"{name}.json").read_text())
    assert picture.stat().st_size < 100_000
    assert (folder / f"{name}.json").stat().st_size < 100_000
    defaults = inspect.signature(FIGURES[name].compute).parameters
    for option, value in numbers["config"].items():
        default = defaults[option].default
        assert value == ([str(v) for v in default] if isinstance(default, tuple) else default), option
    assert digest(numbers) in picture.read_text()
    if name in ("grid", "growth", "pascal"):  # cheap ones are computed again
        assert_same(json.loads(write_json(tmp_path / "a.json", FIGURES[name].compute()).read_text()), numbers)


def assert_same(found, expected):
    """Numbers to 1e-4; sentences and largest errors, which are of rounding, aside."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key not in ("findings", "largest_relative_error"):
                assert_same(value, expected[key])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    else:
        assert found == (pytest.approx(expected, rel=1e-4) if isinstance(found, float) else expected)
