"""Figures of arXiv 2405.21064: numbers against other ways to them, files, the command, and the committed copies."""

import cmath
import inspect
import json
import math
import re
from pathlib import Path

import pytest
import torch
from test_paper import assert_same

from lsc_ext import memory
from lsc_ext.cli import main
from lsc_ext.experiments.identification import IDENTIFICATIONS
from lsc_ext.files import write_json
from lsc_ext.paper import FIGURES, MEMORY_FIGURES, MEMORY_GROUPS, chosen_figures, run_figure
from lsc_ext.paper.coupling import eigenvalue_coupling
from lsc_ext.paper.curse import memory_curse
from lsc_ext.paper.drawing import digest
from lsc_ext.paper.landscapes import RANGES, loss_landscapes
from lsc_ext.paper.tamed import tamed_memory

ROOT = Path(__file__).parent.parent
F64 = torch.float64
# Sizes at which every figure takes no time; each takes those that it has.
SMALL = {
    "points": 5,
    "steps": 40,
    "draws": 2,
    "networks": 2,
    "sequences": 2,
    "hidden_size": 4,
    "features": 6,
    "layers": 2,
    "time_steps": 9,
    "batch_size": 2,
    "seeds": 1,
    "memories": (1.0, 4.0),
}
# Of networks at full size, of which test_propagation.py computes parts again.
NETWORKS = ("jacobians", "propagation")


@pytest.mark.parametrize("name", sorted(MEMORY_FIGURES))
def test_a_figure_writes_its_numbers_and_its_picture(name, tmp_path):
    data, files = run_figure(MEMORY_FIGURES[name], tmp_path, **SMALL)
    assert [file.name for file in files] == [f"{name}.json", f"{name}.svg"]
    assert json.loads(files[0].read_text()) == data
    assert data["config"].keys() == set(MEMORY_FIGURES[name].options)
    assert all(data["findings"])
    assert digest(data) in files[1].read_text()
    if name in ("coupling", "hessians"):  # with images in them
        again = MEMORY_FIGURES[name].draw(data, tmp_path / "again.svg")
        assert again.read_bytes() == files[1].read_bytes()


def test_the_curse_is_the_document_s_sums_and_losses():
    data = memory_curse(points=3, rhos=(0.0, 0.9), teachers=(0.84, 0.99))
    assert data["digits"] == [0, 2, 4]
    white, coloured = data["sensitivities"]
    assert white["sensitivity"][1:] == pytest.approx([251262.6261024, 2.5e11], rel=2e-4)
    assert coloured["sensitivity"][1] == pytest.approx(4737807.221287, rel=1e-5)
    assert data["state"] == pytest.approx([1, 1e4, 1e8], rel=1e-5)
    for loss, teacher in zip(data["losses"], (0.84, 0.99), strict=True):

        def expected(lam: complex, teacher: float = teacher) -> float:
            """As the document writes it, for white noise."""
            alone = 1 / (1 - abs(lam) ** 2) + 1 / (1 - teacher**2)
            return (alone - 2 * (1 / (1 - lam * teacher)).real) / 2

        assert loss["by_modulus"] == pytest.approx([expected(x) for x in (0, 1 / 3, 2 / 3)], rel=1e-5)
        ends = expected(-teacher)
        assert loss["by_angle"] == pytest.approx([ends, 0, ends], rel=1e-5, abs=1e-12)


def test_tamed_curves_have_their_limits():
    data = tamed_memory(points=2, rhos=(0.0, 0.9, 1.0))
    last = [(curve["state"][-1], curve["learned"][-1]) for curve in data["curves"]]
    assert last[0] == pytest.approx((1, 0.5), rel=1e-3)
    assert last[1] == pytest.approx((19, 9.5), rel=2e-3)
    assert last[2] == pytest.approx((2e4, 2e4), rel=1e-3)
    assert [curve["following"][-1] for curve in data["curves"]] == pytest.approx([0.25, 4.75, 5000], rel=2e-3)


@pytest.mark.parametrize("teacher", [0.36, 0.99])
def test_landscapes_are_losses_and_their_second_differences(teacher):
    points = 5
    data = loss_landscapes(points=points, teachers=(teacher,))

    def gamma(lam: complex) -> float:
        return math.sqrt(1 - abs(lam) ** 2)

    def expected(lam: complex, aim: complex) -> float:
        return 1 - (gamma(lam) * gamma(aim) / (1 - lam * aim.conjugate())).real

    moduli = {"polar": lambda w: w, "exp": lambda w: math.exp(-math.exp(w)), "optimal": math.tanh}
    unit = (1 - teacher**2) / (teacher * math.sqrt(1 + teacher**2))
    phases = {
        "polar": lambda v: math.pi * v,
        "exp": lambda v: math.exp(math.pi * v),
        "optimal": lambda v: math.pi * v * unit,
    }
    for row in data["rows"]:
        name, (curve,) = row["parametrization"], row["curves"]
        w = torch.linspace(*RANGES[name][0], points, dtype=F64).tolist()
        v = torch.linspace(*RANGES[name][1], points, dtype=F64).tolist()
        aim, h = cmath.rect(teacher, math.pi / 100), 1e-4

        def by_w(x: float, name: str = name) -> float:
            return expected(moduli[name](x), complex(teacher))

        def by_v(x: float, name: str = name, aim: complex = aim) -> float:
            return expected(cmath.rect(teacher, phases[name](x)), aim)

        for key, at, function in (("modulus", w, by_w), ("phase", v, by_v)):
            assert curve[f"loss_by_{key}"] == pytest.approx([function(x) for x in at], rel=1e-5, abs=1e-9)
            second = [(function(x + h) - 2 * function(x) + function(x - h)) / h**2 for x in at]
            assert curve[f"curvature_by_{key}"] == pytest.approx(second, rel=2e-3, abs=1e-5)


def test_coupling_is_the_exact_formula_on_its_grid():
    data = eigenvalue_coupling(points=17, rhos=(0.0, 0.9))
    for panel in data["maps"]:
        table = torch.tensor(panel["log10"], dtype=F64)
        assert table.shape == (17, 49)
        column = data["angle"].index(round(-math.pi / 4, 3))
        assert float(table[-1, column]) == pytest.approx(math.log10(panel["at_conjugate"]), abs=6e-4)
        lam = cmath.rect(0.99 * 9 / 16, -math.pi + 2 * math.pi * 7 / 48)
        found = memory.sensitivity_cross_moment(lam, cmath.rect(0.99, math.pi / 4), panel["rho"])
        assert float(table[9, 7]) == pytest.approx(math.log10(abs(complex(found))), abs=6e-4)
    assert data["maps"][0]["at_conjugate"] == pytest.approx(251262.63, rel=1e-7)
    assert data["maps"][1]["at_conjugate"] == pytest.approx(88908.954, rel=1e-7)


def test_groups_and_options_of_the_table():
    chosen = chosen_figures(["all"], ["points"], MEMORY_FIGURES, MEMORY_GROUPS)
    assert [figure.name for figure in chosen] == list(MEMORY_FIGURES)
    assert not set(MEMORY_FIGURES) & set(FIGURES)
    with pytest.raises(ValueError, match="teachers: expected an option of tamed, got one of curse, landscapes"):
        chosen_figures(["tamed"], ["teachers"], MEMORY_FIGURES, MEMORY_GROUPS)


def test_the_command_lists_and_computes(tmp_path, capsys):
    assert main(["memory", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == {name: figure.element for name, figure in MEMORY_FIGURES.items()}
    assert main(["memory"]) == 0
    assert "Figure 8" in capsys.readouterr().out
    options = ["--points", "4", "--rhos", "0.5", "--teachers", "0.9", "--folder", str(tmp_path), "--format", "png"]
    assert main(["memory", "curse", "tamed", *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["curse", "tamed"]
    assert report["curse"]["config"] == {"points": 4, "rhos": ["0.5"], "teachers": ["0.9"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curse.json", "curse.png", "tamed.json", "tamed.png"]


def test_the_command_passes_sizes_and_seed_on(tmp_path, capsys):
    sizes = ["--sequences", "3", "--features", "5", "--steps", "8", "--hidden-size", "2", "--points", "4"]
    assert main(["memory", "gates", "words", *sizes, "--seed", "7", "--folder", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    expected = {"sequences": 3, "features": 5, "steps": 8, "seed": 7}
    assert report["words"]["config"] == expected
    assert report["gates"]["config"] == {**expected, "hidden_size": 2, "points": 4}
    assert main(["memory", "hessians", "--draws", "1", "--networks", "2", "--folder", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["hessians"]["config"] == {"draws": 1, "networks": 2, "seed": 0}


def test_the_command_runs_networks_of_any_size(tmp_path, capsys):
    sizes = ["--hidden-size", "4", "--features", "3", "--time-steps", "6", "--batch-size", "2", "--layers", "2"]
    options = ["--recurrences", "lru", "--norms", "batch", "--memories", "3", "--objective", "published"]
    more = ["--seeds", "2", "--seed", "5", "--folder", str(tmp_path), "--json"]
    assert main(["memory", "propagation", "jacobians", *sizes, *options, *more]) == 0
    report = json.loads(capsys.readouterr().out)
    config = report["propagation"]["config"]
    assert (config["recurrences"], config["norms"], config["objective"]) == (["lru"], ["batch"], "published")
    assert [config[name] for name in ("layers", "batch_size", "seeds", "seed")] == [2, 2, 2, 5]
    assert [arm["memory"] for arm in report["propagation"]["arms"]] == [3]
    sizes_of_jacobians = {"hidden_size": 4, "features": 3, "time_steps": 6, "points": 20, "seed": 5}
    assert report["jacobians"]["config"] == sizes_of_jacobians


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grid"], ["figure", "expected names among curse", "grid"]),
        (["tamed", "--teachers", "0.5"], ["teachers", "expected an option of tamed"]),
        (["curse", "--points", "1"], ["points", "at least 2", "1"]),
        (["curse", "--rhos", "2"], ["rho", "between -1 and 1", "2"]),
        (["words", "--draws", "3"], ["draws", "expected an option of words, got one of hessians"]),
        (["gates", "--sequences", "1"], ["sequences", "at least 2", "1"]),
        (["landscapes", "--teachers", "1.0"], ["teacher", "below 1"]),
        (["propagation", "--memories", "0.5"], ["memories", "at least 1", "0.5"]),
        (["jacobians", "--norms", "layer"], ["norms", "expected an option of jacobians", "propagation"]),
    ],
)
def test_bad_arguments_of_the_command_exit_with_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["memory", *arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_every_figure_of_the_document_has_a_command_a_test_and_a_picture():
    page = (ROOT / "docs" / "memory.md").read_text()
    table = re.search(r"\| topic or figure.*?\n\n", page, re.DOTALL)
    assert table is not None
    commands, shown = set(), set()
    for line in table[0].strip().splitlines()[2:]:
        topic, command, tests, picture = (cell.strip() for cell in line.strip("|").split(" | "))
        assert all((topic, command, tests, picture)), line
        assert "::" in tests
        links = re.findall(r"\((\S+)\)", picture)
        assert [Path(link).suffix for link in links] == [".svg", ".json"]
        assert all((ROOT / "docs" / link).exists() for link in links)
        name = command.strip("`").split()[1]
        assert Path(links[1]).stem == name
        commands.add(command.strip("`"))
        shown |= {int(number) for number in re.findall(r"(\d+)[A-D]?\b", topic.partition("figure")[2])}
    known = {f"memory {name}" for name in MEMORY_FIGURES} | {f"experiments {name}" for name in IDENTIFICATIONS}
    assert commands == known
    assert shown == set(range(1, 16))


def test_tests_that_the_page_names_exist():
    lines = [line for line in (ROOT / "docs" / "memory.md").read_text().splitlines() if "::" in line]
    assert len(lines) > 40
    for line in lines:
        for file, test in (part.split("::") for part in line.split("`") if "::" in part):
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), line


@pytest.mark.parametrize("name", sorted(MEMORY_FIGURES))
def test_the_committed_figure_is_drawn_from_its_committed_numbers(name, tmp_path):
    folder = ROOT / "docs" / "memory"
    picture, numbers = folder / f"{name}.svg", json.loads((folder / f"{name}.json").read_text())
    assert picture.stat().st_size < 250_000
    assert (folder / f"{name}.json").stat().st_size < 150_000
    defaults = inspect.signature(MEMORY_FIGURES[name].compute).parameters
    for option, value in numbers["config"].items():
        default = defaults[option].default
        assert value == ([str(v) for v in default] if isinstance(default, tuple) else default), option
    assert digest(numbers) in picture.read_text()
    if name in NETWORKS:
        return
    found = json.loads(write_json(tmp_path / "a.json", MEMORY_FIGURES[name].compute()).read_text())
    for part in (found, numbers):  # where a teacher is met, the loss is of rounding
        for loss in part.get("losses", []):
            loss["by_angle"][len(loss["by_angle"]) // 2] = 0.0
    assert_same(found, numbers)
