"""The training experiments: every network and arm, what is fair about them, resuming, and the committed results."""

import json
import multiprocessing
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import shd, write_data_sets

import lsc_ext as lsc
from lsc_ext.cli import main
from lsc_ext.experiments import EXPERIMENTS, execute, grid, runner, tasks, training
from lsc_ext.experiments import command as experiments_command
from lsc_ext.experiments.command import KNOWN, Options, chosen, run_experiments
from lsc_ext.experiments.grid import Run
from lsc_ext.experiments.networks import ARMS, NETWORKS, build_model, pretrained
from lsc_ext.experiments.readers import spikes_of
from lsc_ext.experiments.results import read_results, write_results
from lsc_ext.experiments.table import document, write_page
from lsc_ext.experiments.tasks import SHD_FILES, load_task, windows
from lsc_ext.experiments.training import run

ROOT = Path(__file__).parent.parent
TOY = {
    "layers": 2,
    "hidden_size": 4,
    "epochs": 1,
    "batch_size": 8,
    "samples": 12,
    "pretrain_steps": 2,
    "pretrain_batch": 3,
    "pretrain_points": 2,
}
TOY_TEXT = {"time_steps": 5, "words": 12, "samples": 90}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of small data sets; test_experiment_data.py reads spikes from HDF5, here they are made up."""
    folder = write_data_sets(tmp_path_factory.mktemp("data"))
    for name in SHD_FILES:
        (folder / name).touch()
    made = spikes_of(shd(np.random.default_rng(0), 60), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "read_shd", lambda path: made)
        yield folder


def toy(configuration: Run, **changes) -> Run:
    text = TOY_TEXT if configuration.task == "language" else {}
    return replace(configuration, **{**TOY, **text, **changes})


def small(network="gru", arm="none", task="rows", **changes) -> Run:
    source = "topics" if task == "language" else "mnist"
    made = Run("recurrent", task, source, network, 2, 4, arm, 0.01, 0, 1, 8)
    return toy(made, **changes)


def every_kind() -> dict[str, Run]:
    """One run of each task, source, network and arm of both grids, at toy sizes."""
    kinds = {}
    for full in (False, True):
        for experiment in EXPERIMENTS:
            for found in grid(experiment, full=full, seeds=[0], images="mnist", text="ptb"):
                name = "-".join((found.source, found.task, found.network, found.arm, str(found.clip)))
                kinds.setdefault(name, toy(found))
    return kinds


KINDS = every_kind()


def test_the_grids_have_what_the_paper_has():
    found = {(r.task, r.network, r.arm) for r in KINDS.values()}
    assert {network for _, network, _ in found} == set(NETWORKS)
    assert {arm for _, _, arm in found} == set(ARMS)
    assert {task for task, _, _ in found} == {"image", "rows", "latency", "spikes", "language"}
    ffn = grid("ffn", full=True, seeds=range(4), images="mnist", text="ptb")
    assert len(ffn) == 3 * 3 * 7 * 4 * 3
    assert {(r.layers, r.hidden_size, r.batch_size, r.epochs) for r in ffn} == {(30, 128, 512, 50)}
    recurrent = grid("recurrent", full=True, seeds=range(4), images="mnist", text="ptb")
    assert len(recurrent) == 6 * 3 * 2 * 4 * 3
    assert {r.layers for r in recurrent} == {2, 5}
    assert len(grid("reslru", full=True, seeds=range(4), images="mnist", text="ptb")) == 2 * 2 * 2 * 4 * 4


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_network_and_arm_runs(name, data):
    configuration = KINDS[name]
    result = run(configuration, data)
    assert not result["diverged"]
    assert len(result["validation"]) == len(result["loss"]) == 1
    if configuration.task == "language":
        assert 1 < result["test"] < 100
    else:
        assert 0 <= result["test"] <= 1
    target = ARMS[configuration.arm]
    assert (result["pretraining"] is None) == (target is None)
    if isinstance(target, float):
        assert set(result["pretraining"]["targets"].values()) == {target}
    if target == "unbalanced":
        assert result["pretraining"]["targets"] == {"time": pytest.approx(5 / 7, abs=1e-4), "diagonal": 0.2857}
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("configuration", [small("gru", "0.5"), small("res_lru", "none", "language", dropout=0.5)])
def test_a_configuration_gives_its_numbers_and_another_seed_others(configuration, data):
    first, again, other = (run(replace(configuration, seed=seed), data) for seed in (0, 0, 1))
    for result in (first, again, other):
        del result["seconds"]
    assert first == again
    assert other["loss"] != first["loss"]


def model_of(network, arm, seed=0, words=False, **changes):
    torch.manual_seed(seed)
    sizes = {"features": 6, "classes": 3, "hidden_size": 6, "num_layers": 3, "time_steps": 8, "dropout": 0.0}
    return build_model(network, arm, words=words, **{**sizes, **changes})


@pytest.mark.parametrize("network", ["gru", "lstm", "rnn_relu", "alif", "alif_bipolar", "res_lru", "sin"])
def test_arms_start_from_the_same_weights(network):
    arms = ("glorot", "lsc") if network == "sin" else ("none", "1", "0.5")
    first, *others = (model_of(network, arm).state_dict() for arm in arms)
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_he_is_glorot_with_another_scale():
    glorot, he = (model_of("relu", arm).state_dict() for arm in ("glorot", "he"))
    for name, value in glorot.items():
        factor = 2**0.5 if name.startswith("stack.weight") else 1.0
        assert torch.allclose(he[name], factor * value, rtol=1e-6), name


@pytest.mark.parametrize("network", ["gru", "res_lru"])
def test_pretraining_changes_the_stack_alone_and_reaches_the_arms_target(network):
    model = model_of(network, "0.5", words=True, features=9, num_layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randint(9, (8, 40))
    result = pretrained(model, "0.5", x, steps=80, batch_size=16, max_points=32, tolerance=0.03, lr=0.05, seed=0)
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if not n.startswith("stack."))
    assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith("stack."))
    assert result.deviation() < 0.06
    assert pretrained(model, "none", x) is None


def test_arms_see_the_same_batches(data):
    task = load_task("rows", "mnist", data, samples=30)
    for seed in (0, 1):
        orders = [
            [labels.tolist() for _, labels in training._batches(task, small(arm=arm), generator(seed))]
            for arm in ("none", "1")
        ]
        assert orders[0] == orders[1]
        assert sum(map(len, orders[0])) == 30


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_validation_decides_nothing_that_testing_reports(data, monkeypatch):
    configuration = small("gru", epochs=3, samples=30)
    task = load_task("rows", "mnist", data, words=0, samples=30)
    plain = run(configuration, data)
    monkeypatch.setattr(training, "load_task", lambda *a, **k: replace(task, validation=task.train))
    other = run(configuration, data)
    assert other["validation"] != plain["validation"]
    assert (other["test"], other["loss"]) == (plain["test"], plain["loss"])


def test_a_clipped_gradient_has_at_most_the_norm_that_is_asked_for(data):
    weights = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(4))]
    for limit, left in ((None, 13.0), (20.0, 13.0), (2.0, 2.0)):
        weights[0].grad, weights[1].grad = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([12.0, 0.0, 0.0, 0.0])
        assert training._clip(weights, limit) == pytest.approx(13.0)
        norm = torch.cat([w.grad for w in weights]).norm()
        assert float(norm) == pytest.approx(left, rel=1e-5)
    losses = {}
    for clip in (None, 1e-4, 1e4):
        # Adam takes no notice of a gradient's scale, but of one that shrinks from step to step.
        result = run(small("res_lru", "none", "language", clip=clip, epochs=2), data)
        losses[clip], clipped = result["loss"], result["clipped"]
        assert clipped == {None: None, 1e-4: 1.0, 1e4: 0.0}[clip]
    assert losses[1e4] == losses[None]
    assert losses[1e-4] != losses[None]


def test_dropout_is_of_training_alone_and_changes_it(data):
    results = {p: run(small("alif", dropout=p), data) for p in (0.0, 0.5)}
    assert results[0.5]["loss"] != results[0.0]["loss"]
    model = model_of("gru", "none", dropout=0.5).eval()
    x = torch.randn(5, 2, 6)
    assert torch.equal(model(x)[0], model(x)[0])
    assert not torch.equal(model.train()(x)[0], model(x)[0])


def test_a_text_is_read_in_columns_and_the_state_is_carried():
    stream = torch.arange(47)
    found = list(windows(stream, 3, 4))
    columns = torch.stack([stream[15 * i : 15 * (i + 1)] for i in range(3)], dim=1)
    assert torch.equal(torch.cat([x for x, _ in found]), columns[:12])
    assert all(torch.equal(y, x + 1) for x, y in found)
    model = model_of("lstm", "none", words=True, features=47).eval()
    whole = model(columns[:12])[0]
    state, pieces = None, []
    for x, _ in found:
        logits, state = model(x, state)
        pieces.append(logits)
    assert torch.allclose(torch.cat(pieces), whole, atol=1e-6)
    carried, apart = (run(small("gru", "none", "language", carry=carry, epochs=2)) for carry in (True, False))
    assert carried["loss"] != apart["loss"]


def test_training_that_diverges_is_a_result(data):
    result = run(small("rnn_relu", lr=1e30, epochs=3), data)
    assert result["diverged"]
    assert result["test"] is None
    assert len(result["loss"]) < 3


def test_a_text_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="time_steps: expected fewer than the 11 words of a column of the train part"):
        run(small("gru", "none", "language", time_steps=30))


def test_a_run_uses_one_thread_and_leaves_the_number_and_the_generator_alone(data, monkeypatch):
    seen = []
    before, state = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(training, "_pretrain", lambda *a: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        run(small(), data)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
    assert torch.equal(torch.get_rng_state(), state)


def fake_result(test: float | None = 0.5, **changes):
    result = {"test": test, "validation": [test], "loss": [1.0], "diverged": test is None, "clipped": None}
    result |= {
        "guessing": 0.1,
        "pretraining": None,
        "seconds": {"pretraining": 0.0, "training": 30.0},
        "data": "d" * 64,
    }
    return {**result, "environment": "a machine", **changes}


@pytest.fixture
def computed(monkeypatch):
    """Runs that were computed; each gives a result at once."""
    seen = []

    def compute(configuration, folder):
        seen.append(configuration)
        return fake_result()

    monkeypatch.setattr(runner, "compute", compute)
    return seen


SIX = [small(seed=seed, arm=arm) for seed in range(3) for arm in ("none", "1")]


def quiet(_: str) -> None:
    pass


def test_what_is_done_is_not_done_again(tmp_path, computed, data):
    done = execute("recurrent", SIX[:4], tmp_path, data=data, say=quiet)
    assert len(done.results) == 4
    execute("recurrent", SIX, tmp_path, data=data, say=quiet)
    assert computed == SIX
    changed = replace(SIX[1], epochs=7)
    execute("recurrent", [SIX[0], changed, *SIX[2:]], tmp_path, data=data, say=quiet)
    assert computed == [*SIX, changed]
    assert read_results(tmp_path, "recurrent")[changed.key]["config"]["epochs"] == 7
    assert len(read_results(tmp_path, "recurrent")) == 6


def test_an_interrupt_loses_the_run_under_way_and_nothing_else(tmp_path, computed, data, monkeypatch):
    complete = runner.compute

    def interrupted(configuration, folder):
        if len(computed) == 3:
            raise KeyboardInterrupt
        return complete(configuration, folder)

    monkeypatch.setattr(runner, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute("recurrent", SIX, tmp_path, data=data, say=quiet)
    assert sorted(read_results(tmp_path, "recurrent")) == sorted(r.key for r in SIX[:3])
    monkeypatch.setattr(runner, "compute", complete)
    execute("recurrent", SIX, tmp_path, data=data, say=quiet)
    assert computed == SIX


def test_a_run_that_fails_is_named_and_not_kept(tmp_path, computed, data, monkeypatch):
    complete = runner.compute

    def failing(configuration, folder):
        if configuration is SIX[2]:
            raise FloatingPointError("states overflow")
        return complete(configuration, folder)

    monkeypatch.setattr(runner, "compute", failing)
    lines = []
    done = execute("recurrent", SIX, tmp_path, data=data, say=lines.append)
    assert list(done.failed) == [SIX[2]]
    assert "states overflow" in done.failed[SIX[2]]
    assert len(done.results) == 5
    assert any(SIX[2].key in line and "FloatingPointError" in line for line in lines)


def test_runs_without_data_are_left_out_with_the_reason(tmp_path, computed):
    done = execute("recurrent", [small(), small("gru", "none", "language")], tmp_path, say=quiet)
    assert [r.task for r in computed] == ["language"]
    (reason,) = done.missing.values()
    assert "train-images-idx3-ubyte" in reason
    assert "--data" in reason


def test_processes_compute_what_one_computes_and_are_stopped_by_an_interrupt(tmp_path, data):
    runs = [small("gru", arm, seed=seed) for arm in ("none", "0.5") for seed in range(4)]
    lines = []

    def interrupt(line):
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute("recurrent", runs, tmp_path, data=data, workers=2, say=interrupt)
    assert multiprocessing.active_children() == []
    kept = read_results(tmp_path, "recurrent")
    assert len(kept) == 2
    for run_made in runs:
        if run_made.key in kept:
            expected, found = run(run_made, data), kept[run_made.key]["result"]
            assert {**found, "seconds": None} == {**expected, "seconds": None}


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "ffn.json").write_text('{"figure": "grid"}')
    with pytest.raises(ValueError, match=r"ffn\.json: expected results of experiments"):
        read_results(tmp_path, "ffn")


def test_the_command_lists_experiments(tmp_path, capsys):
    assert main(["experiments", "--folder", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {name: row["runs"] for name, row in listed.items()} == {
        "ffn": 81,
        "recurrent": 72,
        "reslru": 24,
        "long_memory": 84,
        "ablation": 48,
        "angles": 90,
        "heads": 54,
        "adam": 9,
    }
    assert all(row["done"] == 0 for row in listed.values())
    assert main(["experiments", "--folder", str(tmp_path), "--seeds", "4"]) == 0
    assert "0 of 27 runs done" in capsys.readouterr().out


def test_the_command_runs_what_is_missing_and_writes_everything(tmp_path, computed, capsys, monkeypatch):
    folder = tmp_path / "new"
    arguments = ["experiments", "ffn", "--folder", str(folder), "--seeds", "0", "--workers", "1"]
    assert main(arguments) == 0
    assert len(computed) == 27
    shown = capsys.readouterr().out
    assert "LSC over Glorot: 0 of 0" in shown  # all are equal
    assert sorted(path.name for path in folder.iterdir()) == ["ffn.json", "shares.svg", "tables.md"]
    assert "24 have not been run" in (folder / "tables.md").read_text()
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ffn"]["runs"] == 27
    assert report["ffn"]["shares"]["LSC over He"]["ties"] == 9
    assert len(computed) == 27
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- experiments -->\n<!-- /experiments -->\nafter\n")
    assert main([*arguments, "--page", str(page)]) == 0
    assert page.read_text().startswith("Before\n<!-- experiments -->\n![Shares")
    assert "(new/shares.svg)" in page.read_text()
    assert page.read_text().endswith("<!-- /experiments -->\nafter\n")

    assert main([*arguments[:-3], "0", "1", "--tables"]) == 0
    assert len(computed) == 27
    assert "**27 of 54 runs; 27 have not been run**" in (folder / "tables.md").read_text()

    def failing(configuration, folder):
        raise ValueError("broken")

    monkeypatch.setattr(runner, "compute", failing)
    assert main([*arguments[:-3], "1", "--workers", "1"]) == 1
    assert "broken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lstm"], ["experiment", "ffn, recurrent, reslru, long_memory", "stability, curse, all", "lstm"]),
        (["ffn", "--workers", "0"], ["workers", "at least 1", "0"]),
        (["ffn", "--seeds", "1", "1"], ["seeds", "distinct", "[1, 1]"]),
        (["ffn", "--data", "absent"], ["data", "folder", "absent"]),
        (["ffn", "--page", "absent.md"], ["page", "absent.md"]),
    ],
)
def test_bad_arguments_exit_with_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["experiments", *arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_all_stands_for_every_experiment():
    assert chosen(["all", "ffn"]) == list(KNOWN)
    assert chosen(["reslru", "ffn"]) == ["ffn", "reslru"]


def test_unknown_names_are_refused():
    for call, name in (
        (lambda: grid("cnn", full=False, seeds=[0], images="mnist", text="ptb"), "experiment"),
        (lambda: model_of("cnn", "none"), "network"),
        (lambda: model_of("gru", "best"), "arm"),
        (lambda: Options(text="war"), "text"),
        (lambda: Options(images="cifar10"), "images"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            call()


def planned_grid(**changes):
    return {name: Options(**changes).runs(name) for name in EXPERIMENTS}


def test_tables_say_what_was_not_run(tmp_path):
    planned = planned_grid()
    results = {
        "ffn": {
            r.key: {"config": r.config(), "result": fake_result(0.9 if r.arm == "lsc" else 0.7)}
            for r in planned["ffn"]
            if r.seed < 2 and r.network != "cos"
        }
    }
    text = document(results, planned, "shares.svg")
    assert "**36 of 81 runs; 45 have not been run**, seeds 0, 1, 18.0 minutes" in text
    assert "**72 runs" not in text
    assert text.count("**0 of 72 runs; 72 have not been run**.") == 1
    line = "| feed-forward, sine, learning rate 0.01 | 0.700 (0.700 to 0.700), 2 of 3 seeds |"
    assert line in text
    assert "| feed-forward, cosine, learning rate 0.01 | not run | not run | not run |" in text
    assert "| **LSC over Glorot** | 12 | 12 | 0 | 100% | 76% to 100% | 0.00049 | **wins** |" in text
    assert "| **He over Glorot** | 0 | 0 | 12 | – | – | – | no claim |" in text
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="page: expected <!-- experiments -->"):
        write_page(page, results, planned, "shares.svg")


def test_a_result_of_another_configuration_is_not_in_the_tables(tmp_path, computed):
    run_experiments(["ffn"], Options(folder=tmp_path, seeds=(0,), workers=1), quiet)
    results = read_results(tmp_path, "ffn")
    key = next(iter(results))
    results[key]["config"]["epochs"] = 99
    write_results(tmp_path, "ffn", results)
    assert experiments_command.listing(Options(folder=tmp_path, seeds=(0,)))["ffn"]["done"] == 26
    run_experiments(["reslru"], Options(folder=tmp_path, seeds=(0,), workers=1), quiet)
    assert "**26 of 27 runs; 1 have not been run**" in (tmp_path / "tables.md").read_text()


def committed() -> dict[str, dict]:
    return {name: read_results(ROOT / "docs" / "experiments", name) for name in EXPERIMENTS}


def test_the_committed_page_is_what_the_committed_results_give():
    page = (ROOT / "docs" / "experiments.md").read_text()
    shown = re.search(r"<!-- experiments -->\n(.*)<!-- /experiments -->", page, re.DOTALL)
    assert shown is not None
    assert shown[1] == document(committed(), planned_grid(), "experiments/shares.svg")


def test_the_committed_results_are_of_the_default_grid_and_small():
    folder = ROOT / "docs" / "experiments"
    for name, results in committed().items():
        planned = {r.key: r.config() for r in Options().runs(name)}
        assert {key: entry["config"] for key, entry in results.items()}.items() <= planned.items()
        assert results
        assert (folder / f"{name}.json").stat().st_size < 200_000
    picture = (folder / "shares.svg").read_text()
    assert len(picture) < 100_000
    counts = ", ".join(f"{name} {len(results)}" for name, results in sorted(committed().items()))
    assert f"runs: {counts}" in picture


def test_a_committed_run_is_computed_again():
    """The first epoch of a cheap one, on data that is the same in every Python; instruction sets round differently."""
    wanted = {"task": "rows", "network": "rnn_relu", "arm": "none"}.items()
    entry = next(entry for entry in committed()["recurrent"].values() if wanted <= entry["config"].items())
    again = run(Run(**{**entry["config"], "epochs": 1}))
    for name in ("data", "guessing"):
        assert again[name] == entry["result"][name]
    assert again["loss"][0] == pytest.approx(entry["result"]["loss"][0], rel=0.02)
    assert lsc.__version__ in again["environment"]
