"""Every case of the benchmark's table runs and is right at small sizes, and where one is wrong no speed is shown."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch

from lsc_ext import bench
from lsc_ext.bench import growth, overhead, peers, probe, targets
from lsc_ext.bench.case import Case, Contender, Findings, Race, Study
from lsc_ext.bench.closed_form import Points
from lsc_ext.bench.measure import measure, within
from lsc_ext.bench.radii import fixed_work
from lsc_ext.bench.roofline import fractions, higher, measure_roofline
from lsc_ext.bench.run import lines_of, run_bench
from lsc_ext.bench.targets import Target, asked_of, judge
from lsc_ext.cli import main

TABLE = bench.cases(quick=True)
ROOFLINE = {"fma": {"float32": {"1": 4e9}, "float64": {"1": 2e9}}, "copy": {"1": 1e10}, "copy_bytes": 1}


MATFREE_MISSING = peers.matfree_missing()


@pytest.fixture(autouse=True)
def _without_jax(monkeypatch):
    """After jax has started its threads, no test of this process could fork without a warning."""
    monkeypatch.setattr(peers, "matfree_missing", lambda: "left to a process of its own")


@pytest.fixture(scope="module")
def roofline():
    return measure_roofline(quick=True)


# Growth is the same cases at more sizes.
CASES = [pytest.param(case, marks=pytest.mark.slow if case.group == "growth" else ()) for case in TABLE]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.group}: {case.name}" for case in TABLE])
def test_every_case_is_right_and_timed(case, roofline):
    row = measure(dataclasses.replace(case, pairs=3, seconds=0.01), roofline, torch.get_num_threads())
    assert row["correct"], row["errors"]
    assert row["errors"]["lsc_ext"], "nothing was checked"
    json.dumps(row, allow_nan=False)
    if "ours" in row:
        timed = [row["ours"], *(p["time"] for p in row["peers"].values() if "time" in p)]
        assert all(0 < time["lowest"] <= time["median"] <= time["highest"] for time in timed)
    else:
        assert row["numbers"]


def test_names_and_groups_are_unique_and_known():
    assert len({(case.group, case.name) for case in TABLE}) == len(TABLE)
    assert {case.group for case in TABLE} == set(bench.GROUPS)
    full = bench.cases(["radii", "layers"])
    assert {(c.sizes["cell"], c.sizes["H"], c.sizes["N"]) for c in full if c.sizes.get("products")} >= {
        (cell, h, n) for cell in ("RNN", "GRU", "LSTM") for h in (64, 128, 256, 512) for n in (256, 1024)
    }
    assert sum(case.group == "layers" for case in full) == 2 * 2 * 3 * 4 * 3


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["time", "depth"])
def test_the_closed_forms_of_the_peers_are_jacobians(kind, direction):
    gates, hidden, states = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind], 5, 1 + (kind == "LSTM")
    weight, bias, fixed, state = (
        torch.randn(*shape, dtype=torch.float64)
        for shape in ((gates * hidden, hidden), (gates * hidden,), (4, gates * hidden), (4, states * hidden))
    )
    point = state if direction == "time" else torch.randn(4, hidden, dtype=torch.float64)
    points = Points(kind, direction, weight, bias, point, fixed, state)
    v = torch.randn_like(point)
    out = torch.empty_like(point)
    points.product(lambda v: v @ weight.T)(v, out)
    expected = (points.dense() @ v.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_the_peers_step_is_torch_nns():
    """Else everybody would agree on the radii of another cell."""
    for kind in ("RNN", "GRU", "LSTM"):
        cell = getattr(torch.nn, f"{kind}Cell")(3, 4)
        x, state = torch.randn(2, 3), torch.randn(2, 4 * (1 + (kind == "LSTM")))
        expected = torch.cat(cell(x, tuple(state.chunk(2, 1))), 1) if kind == "LSTM" else cell(x, state)
        from_input = torch.nn.functional.linear(x, cell.weight_ih, cell.bias_ih)
        found = peers.Points(kind, "time", cell.weight_hh, cell.bias_hh, state, from_input, state).function(
            state, from_input, state
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_matfree_is_measured_where_it_is_installed():
    if missing := MATFREE_MISSING:
        pytest.skip(missing)
    code = """
import json, torch
from lsc_ext.bench.measure import measure
from lsc_ext.bench.radii import fixed_work
from lsc_ext.bench.roofline import measure_roofline
cases = [fixed_work(kind, 16, 8, direction, everybody=True) for kind, direction in (("GRU", "time"), ("LSTM", "depth"))]
print(json.dumps([measure(case, measure_roofline(True), torch.get_num_threads()) for case in cases]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for row in json.loads(done.stdout):
        assert row["correct"], row["errors"]
        assert row["peers"][peers.MATFREE]["ratio"]["median"] > 0


def test_a_missing_rival_is_named_and_is_no_error(roofline):
    row = measure(fixed_work("GRU", 16, 8, everybody=True), roofline, torch.get_num_threads())
    assert row["correct"]
    assert row["peers"][peers.MATFREE] == {"missing": "left to a process of its own"}
    assert any("left to a process" in line for line in lines_of(row))


def race(error, peer_error=0.0, **options):
    """A case whose turns take no time to speak of."""

    def contender(name, error):
        return Contender(name, lambda: None, errors=lambda: {"relative error": error})

    made = Race(contender("lsc_ext", error), [contender("rival", peer_error)], {"relative error": 1e-5}, 8.0, 16.0)
    return Case("layers", "made up", {"H": 1}, lambda: made, **options)


@pytest.mark.parametrize("errors", [(0.3, 0.0), (0.0, 0.3), (math.nan, 0.0)])
def test_a_wrong_result_of_anybody_shows_no_speed_and_exits_with_1(monkeypatch, capsys, errors):
    monkeypatch.setattr("lsc_ext.bench.run.GROUPS", {"layers": lambda quick: [race(*errors)]})
    assert main(["bench", "--quick"]) == 1
    printed = capsys.readouterr().out
    assert "WRONG" in printed
    assert "x ours" not in printed
    assert " ms " not in printed


def test_a_wrong_study_shows_no_numbers():
    study = Case("growth", "made up", {}, lambda: Study(lambda: Findings({"seconds": 1.25}, {"off": 1.0}, False)))
    row = measure(study, ROOFLINE, 1)
    assert "numbers" not in row
    assert not any("1.25" in line for line in lines_of(row))


def test_the_overhead_of_a_wrong_layer_or_of_the_long_way_is_not_shown(monkeypatch, roofline):
    case = overhead.cases(quick=True)[0]
    with monkeypatch.context() as patch:
        patch.setattr(overhead, "results", lambda module, x, mode: [torch.rand(3) + 1])
        assert not measure(case, roofline, torch.get_num_threads())["correct"]
    monkeypatch.setattr(overhead.eager, "route", lambda tensors: overhead.eager.Route.OPERATOR)
    assert not measure(case, roofline, torch.get_num_threads())["correct"]


def test_turns_are_interleaved_and_ratios_are_of_pairs():
    order = []
    clock = iter(range(1000))

    def contender(name, units=1):
        return Contender(name, lambda: (order.append(name), next(clock)), units)

    made = Race(contender("ours"), [contender("a"), contender("b", 2)])
    row = measure(Case("layers", "made up", {}, lambda: made, pairs=4), ROOFLINE, 1)
    assert order[6:] == ["ours", "a", "b"] * 4  # after two of each to warm up
    assert row["pairs"] == row["peers"]["a"]["pairs"] == 4
    assert row["peers"]["b"]["units"] == 2


def test_an_expensive_contender_has_fewer_turns(monkeypatch):
    spent = {"ours": 0.1, "slow": 1.0}
    monkeypatch.setattr("lsc_ext.bench.measure.seconds_of", lambda run: spent[run()])
    made = Race(Contender("ours", lambda: "ours"), [Contender("slow", lambda: "slow", 10)], {}, 8e8, 1e9)
    row = measure(Case("layers", "made up", {}, lambda: made, pairs=15, seconds=1.0), ROOFLINE, 1)
    assert row["pairs"] == 10
    assert row["peers"]["slow"]["pairs"] == 3
    assert row["peers"]["slow"]["ratio"]["median"] == pytest.approx(1.0)
    assert row["fraction_of_fma_peak"] == pytest.approx(2.0)
    assert row["fraction_of_copy_rate"] == pytest.approx(1.0)


def test_the_higher_of_two_limits_counts():
    other = {"fma": {"float32": {"1": 3e9}, "float64": {"1": 7e9}}, "copy": {"1": 2e10}, "copy_bytes": 1}
    assert higher(ROOFLINE, other) == {
        "fma": {"float32": {"1": 4e9}, "float64": {"1": 7e9}},
        "copy": {"1": 2e10},
        "copy_bytes": 1,
    }
    assert fractions({"sizes": {"dtype": "float64"}, "flops_per_second": 1e9}, ROOFLINE, 1) == {
        "fraction_of_fma_peak": 0.5
    }


def test_nan_is_not_within_a_limit():
    assert within({"e": 1e-6, "unlimited": 9.0}, {"e": 1e-5})
    assert not within({"e": math.nan}, {"e": 1e-5})


ROWS = [
    {"group": "layers", "correct": True, "sizes": {"H": h}, "peers": {"p": {"ratio": {"median": r}}}, "share": h / 16}
    for h, r in ((8, 2.0), (16, 8.0))
]


@pytest.mark.parametrize(
    ("options", "measured", "rows"),
    [
        ({"peer": "p"}, 2.0, 2),
        ({"peer": "p", "statistic": "geometric mean"}, 4.0, 2),
        ({"peer": "p", "where": {"H": (16, 32)}}, 8.0, 1),
        ({"value": "share"}, 0.5, 2),
    ],
)
def test_a_target_is_judged_over_its_rows(options, measured, rows):
    verdict = judge(ROWS, [Target("layers", "made up", 3.0, **options)])[0]
    assert (verdict["measured"], verdict["rows"]) == (pytest.approx(measured), rows)
    assert verdict["met"] == (measured >= 3.0)


def test_a_target_without_rows_or_with_wrong_ones_is_not_judged():
    target = Target("layers", "made up", 3.0, "p")
    assert judge([], [target]) == []
    assert judge([dict(ROWS[0], correct=False), {"group": "layers", "sizes": {}, "missing": "x"}], [target]) == []
    assert asked_of(ROWS[0], [target]) == [{"target": "made up", "at_least": 3.0, "measured": 2.0, "met": False}]


def test_every_target_counts_rows_of_the_full_table():
    """A size that was renamed would leave a target without rows and nobody would notice."""
    full = bench.cases()
    for target in targets.TARGETS:
        counted = [case for case in full if case.group == target.group and target._counts(case.sizes)]
        assert counted, target.text


@pytest.mark.parametrize(("power", "constant"), [(2.0, 3.0), (1.0, 1e-6), (0.0, 5.0), (-0.5, 2.0)])
def test_the_exponent_of_a_power_law_is_found(power, constant):
    sizes = (16, 32, 64, 256)
    assert growth.exponent(sizes, [constant * s**power for s in sizes]) == pytest.approx(power, abs=1e-12)


def test_the_exponent_is_the_least_squares_line_and_skips_what_was_not_measured():
    sizes, costs = (2, 4, 8, 16), (1.0, 5.0, 4.0, 30.0)
    x, y = torch.tensor(sizes).double().log(), torch.tensor(costs).double().log()
    slope = torch.linalg.lstsq(torch.stack((x, torch.ones(4).double()), 1), y.unsqueeze(1)).solution[0].item()
    assert growth.exponent(sizes, costs) == pytest.approx(slope)
    assert growth.exponent((1, 2, 4, 8), (None, 2.0, 0.0, 8.0)) == pytest.approx(1.0)
    assert growth.exponent((1, 2), (None, 2.0)) is None


def test_the_mark_of_memory_is_the_process_s_own():
    """Not that of the process that started it, which is far larger here."""
    if probe.peak_memory() is None:
        pytest.skip("no /proc here")
    held = torch.ones(256 << 18)
    code = "from lsc_ext.bench.probe import peak_memory, torch\nbefore = peak_memory()\nheld = torch.ones(64 << 18)\n"
    code += "untouched = torch.empty(1 << 28)\n"  # addresses, no memory
    done = subprocess.run(
        [sys.executable, "-c", code + "print(before, peak_memory())"], capture_output=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert 0.95 * (64 << 20) < after - before < 1.2 * (64 << 20)
    assert before < probe.peak_memory() - 0.5 * held.nbytes


def test_a_failed_probe_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)expected numbers for \{\}.*KeyError"):
        growth._probe("{}")


@pytest.fixture
def small(monkeypatch):
    """Two groups of one case each, right and free."""
    table = {"layers": lambda quick: [race(0.0)], "scan": lambda quick: [dataclasses.replace(race(0.0), group="scan")]}
    monkeypatch.setattr("lsc_ext.bench.run.GROUPS", table)


def test_a_group_is_measured_again_into_an_earlier_report(small, tmp_path):
    path = tmp_path / "b.json"
    assert main(["bench", "--quick", "--output", str(path)]) == 0
    report = json.loads(path.read_text())
    report["cases"][1]["kept"] = True
    path.write_text(json.dumps(report))
    assert main(["bench", "--quick", "--group", "layers", "--output", str(path)]) == 0
    again = json.loads(path.read_text())
    assert [row["group"] for row in again["cases"]] == ["layers", "scan"]
    assert again["cases"][1]["kept"]


def test_an_earlier_report_of_another_machine_is_refused(small):
    earlier = run_bench(quick=True, say=lambda line: None)
    earlier["machine"] = {"processor": "another"}
    with pytest.raises(ValueError, match="output: expected a report of this machine"):
        run_bench(quick=True, groups=["scan"], earlier=earlier)


def test_an_unknown_group_is_refused(capsys):
    with pytest.raises(ValueError, match="group: expected one of radii, .*, got 'speed'"):
        bench.cases(["speed"])
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--group", "speed"])
    assert caught.value.code == 2


def test_json_alone_goes_to_standard_output(small, capsys):
    assert main(["bench", "--quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == bench.SCHEMA


def test_what_needs_a_package_that_is_absent_is_named(monkeypatch, capsys):
    def absent():
        raise ModuleNotFoundError("data: expected mlxtend, got none")

    monkeypatch.setattr("lsc_ext.bench.run.GROUPS", {"pretrain": lambda quick: [Case("pretrain", "x", {}, absent)]})
    assert main(["bench", "--quick"]) == 0
    assert "not measured: data: expected mlxtend" in capsys.readouterr().out
