"""The benchmark refuses to print a speed where its check is red."""

import dataclasses
import json

import lsc_ext.bench as bench
from lsc_ext.cli import main


def test_the_quick_benchmark_is_correct_and_compares_with_peers(capsys, tmp_path):
    assert main(["bench", "--quick", "--output", str(tmp_path / "b.json")]) == 0
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["correct"]
    assert all(case["peers"] for case in report["cases"])
    assert "x ours" in capsys.readouterr().out


def test_a_wrong_result_shows_no_speed_and_exits_with_1(monkeypatch, capsys):
    first = bench._cases(quick=True)[1]
    wrong = dataclasses.replace(first, check=lambda: ({"relative error": 0.3}, False))
    monkeypatch.setattr(bench, "_cases", lambda quick: [wrong])
    assert main(["bench", "--quick"]) == 1
    printed = capsys.readouterr().out
    assert "WRONG" in printed
    assert "x ours" not in printed
    assert " ms " not in printed
