"""The benchmark refuses to print a speed where its check is red."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
import torch

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


@pytest.fixture
def overhead():
    path = Path(__file__).parent.parent / "bench" / "overhead.py"
    spec = importlib.util.spec_from_file_location("overhead", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_overhead_of_a_call_is_measured_on_the_short_way(overhead, tmp_path, capsys):
    assert overhead.main(tmp_path / "o.json", calls=2, blocks=3) == 0
    report = json.loads((tmp_path / "o.json").read_text())
    assert [case["route"] for case in report["cases"]] == ["KERNEL", "RECORDED", "RECORDED"] * 3
    assert report["correct"]
    assert capsys.readouterr().out.count("..") >= 18


def test_the_overhead_of_a_wrong_layer_is_not_shown(overhead, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(overhead, "results", lambda module, x, mode: [torch.rand(3) + 1])
    assert overhead.main(tmp_path / "o.json", calls=2, blocks=3) == 1
    printed = capsys.readouterr().out
    assert printed.count("no time is shown") == 9
    assert "kernel" not in json.loads((tmp_path / "o.json").read_text())["cases"][0]
