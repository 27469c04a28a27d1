"""Pages are what the JSON says."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from lsc_ext import bench
from lsc_ext.bench import peers
from lsc_ext.bench import report as pages
from lsc_ext.bench.run import run_bench

ROOT = Path(__file__).parent.parent
MARKED = "before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nafter\n"


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("run", ROOT / "bench" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured():
    """A run of some groups at small sizes, as it comes back from a file."""
    groups = ["radii", "layers", "threads", "overhead"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "matfree_missing", lambda: "matfree not installed")  # compiling takes seconds
        report = json.loads(json.dumps(run_bench(quick=True, say=lambda line: None, groups=groups)))
    growth = {
        "letter": "H",
        "values": [8, 16, 32],
        "seconds": [0.001, 0.002, 0.004],
        "peak_bytes": [1 << 20, 2 << 20, None],
    }
    growth |= {"trajectory_bytes": [1, 2, 3], "time_exponent": 1.0, "memory_exponent": 1.0}
    report["cases"].append(
        {"group": "growth", "case": "radii against H", "sizes": {"L": 1}, "correct": True, "numbers": growth}
    )
    report["cases"].append({"group": "pretrain", "case": "a stack", "sizes": {}, "missing": "mlxtend is not installed"})
    return report


def test_pages_show_the_recorded_run(runner):
    report = json.loads(runner.RESULTS.read_text())
    assert report["schema"] == bench.SCHEMA
    assert report["correct"]
    drawn = sorted(path.name for path in runner.PAGE.with_suffix("").glob("*.svg"))
    text = runner.PAGE.read_text()
    paths = [f"{runner.PAGE.stem}/{name}" for name in drawn]
    assert text == pages.between_markers(text, pages.document(report, paths))
    assert drawn
    readme = runner.README.read_text()
    assert readme == pages.between_markers(readme, pages.summary(report))


def test_every_row_and_its_ratios_are_on_the_page(measured):
    text = pages.document(measured)
    for row in measured["cases"]:
        if "numbers" not in row:
            assert row["case"] in text
    ratio = next(row for row in measured["cases"] if row["group"] == "layers")["peers"]["torch.nn"]["ratio"]
    assert f"| {pages._times(ratio)} |" in text
    assert "Not measured, a stack: mlxtend is not installed." in text
    assert text.count("\n## ") == 6


def test_pages_are_rewritten_between_the_markers_only(measured, tmp_path):
    page, readme = tmp_path / "benchmarks.md", tmp_path / "README.md"
    page.write_text(MARKED)
    readme.write_text(MARKED)
    measured = measured | {"targets": [VERDICT]}
    pages.render(measured, page, readme)
    once = page.read_text(), readme.read_text()
    assert all(t.startswith("before\n<!-- b") and t.endswith("<!-- /benchmarks -->\nafter\n") for t in once)
    assert "| radii: over a loop, lowest of 3 | 2 | 1.50 | 1.50, 2.50, 4.00 | **no**, 25% short |" in once[0]
    ratios = [row["peers"]["torch.nn"]["ratio"]["median"] for row in measured["cases"] if _is_a_forward_gru(row)]
    lowest, highest = pages._digits(min(ratios)), pages._digits(max(ratios))
    assert f"| forward, GRU, B = 8 | torch.nn | 16 | {len(ratios)} |" in once[1]
    assert f" | {lowest} to {highest} |" in once[1]
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "benchmarks").iterdir()}
    assert set(drawn) == {"radii.svg", "growth_time.svg", "growth_memory.svg"}
    assert all(f"(benchmarks/{name})" in once[0] for name in drawn)
    pages.render(measured, page, readme)
    assert (page.read_text(), readme.read_text()) == once
    assert {path.name: path.read_bytes() for path in (tmp_path / "benchmarks").iterdir()} == drawn


def _is_a_forward_gru(row):
    sizes = row["sizes"]
    return row["group"] == "layers" and (sizes["cell"], sizes["passes"], sizes["B"]) == ("GRU", "forward", 8)


VERDICT = {
    "group": "radii",
    "target": "over a loop",
    "statistic": "lowest",
    "at_least": 2.0,
    "measured": 1.5,
    "lowest": 1.5,
    "median": 2.5,
    "highest": 4.0,
    "rows": 3,
    "met": False,
}


def test_a_wrong_row_has_no_figure_on_the_page(measured):
    wrong = [{"group": "layers", "case": "forward, off", "sizes": {}, "correct": False, "errors": {}}]
    text = pages.document(measured | {"cases": wrong})
    assert "**Wrong, no speed is shown:** forward, off." in text
    assert "torch.nn" not in text


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="page: expected <!-- benchmarks -->"):
        pages.between_markers("nothing", "x")


def test_the_pages_of_this_repository_have_markers(runner):
    for path in (runner.PAGE, runner.README):
        assert "\nmarked\n<!-- /benchmarks -->" in pages.between_markers(path.read_text(), "marked\n")


def test_a_ratio_has_its_spread():
    assert pages._times({"median": 12.34, "lowest": 2.0, "highest": 345.6}) == "12.3 (2.00 to 346)"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2.0, "2.00 s"), (0.0123, "12.3 ms"), (1.5e-4, "150 µs"), (2.5e-9, "2.50 ns"), (-2e-6, "-2.00 µs")],
)
def test_a_duration_has_three_digits_and_a_unit(seconds, shown):
    assert pages.duration(seconds) == shown


def test_small_sizes_are_neither_kept_nor_rendered(runner, monkeypatch):
    calls = []
    monkeypatch.setattr(runner, "main", lambda arguments: calls.append(arguments) or 0)
    monkeypatch.setattr(runner, "render", lambda *a: calls.append("rendered"))
    assert runner.run(["--quick", "--group", "scan"]) == 0
    assert calls == [["bench", "--quick", "--group", "scan"]]


@pytest.mark.parametrize(("code", "rendered"), [(0, True), (1, False)])
def test_a_red_check_renders_nothing(runner, monkeypatch, tmp_path, code, rendered):
    calls = []
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "cpu.json")
    (tmp_path / "cpu.json").write_text("{}")
    monkeypatch.setattr(runner, "main", lambda arguments: code)
    monkeypatch.setattr(runner, "render", lambda *a: calls.append("rendered"))
    assert runner.run([]) == code
    assert bool(calls) == rendered


def test_a_curve_is_as_high_as_its_row(measured):
    row = next(r for r in measured["cases"] if r["group"] == "radii" and r["sizes"].get("products"))
    panel = pages.pictures._radii(measured["cases"])[0]
    assert panel["curves"]["lsc_ext"] == [(row["sizes"]["H"], row["ours"]["median"])]
    assert math.isclose(
        pages.pictures._growth(measured["cases"])["growth_memory"][0]["curves"]["lsc_ext"][1][1], 2 << 20
    )
