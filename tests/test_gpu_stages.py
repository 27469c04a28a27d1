"""`make gpu` where there is no GPU: what it prepares, how it stops, what it keeps."""

import importlib.util
import json
import stat
import sys
import time
from pathlib import Path

import pytest
import torch

from lsc_ext.bench import cuda as races
from lsc_ext.bench import device_report
from lsc_ext.bench.measure import measure

ROOT = Path(__file__).parent.parent
CONSTANTS = {
    "stage": "constants",
    "verdict": "done",
    "device": "NVIDIA Test 9000",
    "wrong": ["cluster_store_step_us_H256_C4"],
    "figures": {"copy_gb_per_s": 4000.0, "grid_barrier_us": 1.25},
}


@pytest.fixture(scope="module")
def stages():
    spec = importlib.util.spec_from_file_location("gpu_run", ROOT / "bench" / "gpu" / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def place(stages, tmp_path):
    return stages.Workplace(tmp_path / "gpu")


def test_a_command_leaves_its_output_in_the_log(place):
    assert place.run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"]) == "out\n"
    assert {"out", "err"} <= set(place.log.read_text().split())


def test_a_command_that_fails_is_named(stages, place):
    with pytest.raises(stages.StageError, match=r"exit code 5; .*log\.txt has its output"):
        place.run([sys.executable, "-c", "import sys; sys.exit(5)"])


def test_a_command_that_finds_no_device_is_told_apart(stages, place):
    with pytest.raises(stages.NoDeviceError, match="no CUDA device"):
        place.run([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_a_stage_ends_in_time_with_all_that_it_started(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "SECONDS", 1)
    place = stages.Workplace(tmp_path)
    marker = tmp_path / "survived"
    child = f"import time; time.sleep(4); open({str(marker)!r}, 'w')"
    command = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    with pytest.raises(stages.StageError, match="not done after the stage's 1 s"):
        place.run([sys.executable, "-c", command])
    assert time.monotonic() - start < 3.5, "the stage outlived its time"
    time.sleep(max(0.0, 4.6 - (time.monotonic() - start)))
    assert not marker.exists(), "a process of the stage outlived it"
    assert "begun" in place.log.read_text()


def _fake_tool(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_without_a_device_a_stage_is_prepared_and_says_so(stages, tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        monkeypatch.setattr(stages, "PROBE", "print(None)")
    # A compiler that makes a program which finds no device.
    compiler = f"""#!{sys.executable}
import os, sys
out = sys.argv[sys.argv.index("-o") + 1]
open(out, "w").write("#!/bin/sh\\nexit 3\\n")
os.chmod(out, 0o755)
"""
    monkeypatch.setenv("CUDACXX", str(_fake_tool(tmp_path / "nvcc", compiler)))
    folder = tmp_path / "gpu"
    assert stages.main(["constants", "test", "--folder", str(folder)]) == stages.NO_DEVICE
    for name in ("constants", "test"):
        kept = json.loads((folder / f"{name}.json").read_text())
        assert kept["verdict"] == "prepared; not run: no CUDA device"
        assert set(kept) == {"stage", "verdict", "seconds"}, "a figure that was not measured"
    assert "sm_90" in (folder / "log.txt").read_text()
    assert capsys.readouterr().out.count("no CUDA device") == 2


def test_a_compiler_that_fails_is_a_failure(stages, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDACXX", str(_fake_tool(tmp_path / "nvcc", "#!/bin/sh\nexit 1\n")))
    assert stages.main(["constants", "--folder", str(tmp_path / "gpu")]) == 1
    assert "FAILED" in json.loads((tmp_path / "gpu" / "constants.json").read_text())["verdict"]


def test_no_compiler_is_said(stages, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setattr(stages.shutil, "which", lambda name: None)
    assert stages.main(["constants", "--folder", str(tmp_path)]) == 1
    assert "nvcc: expected it on the PATH" in json.loads((tmp_path / "constants.json").read_text())["verdict"]


def test_an_unknown_stage_is_refused(stages, capsys):
    with pytest.raises(SystemExit):
        stages.main(["speed"])
    assert "stage: expected one of constants, build, test" in capsys.readouterr().err


def test_only_a_measured_device_is_kept(stages, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "constants.json").write_text(json.dumps({"stage": "constants", "verdict": "prepared"}))
    with pytest.raises(SystemExit):
        stages.main(["--keep", str(tmp_path)])
    assert "expected the findings of a device" in capsys.readouterr().err
    assert not list((tmp_path / "bench" / "results").iterdir())
    (tmp_path / "constants.json").write_text(json.dumps(CONSTANTS))
    assert stages.main(["--keep", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "bench" / "results" / "nvidia-test-9000.json").read_text())
    assert kept["stages"]["constants"]["figures"] == CONSTANTS["figures"]


def test_the_page_says_what_was_measured():
    assert "None of this was measured" in device_report.section([])
    rows = [
        {
            "case": "forward, GRU",
            "correct": True,
            "ours": {"median": 2e-3},
            "peers": {"torch.nn, cuDNN": {"ratio": {"median": 0.5}}},
        },
        {"case": "forward, LSTM", "correct": False},
    ]
    page = device_report.section(
        [
            {
                "device": "NVIDIA Test 9000",
                "stages": {"constants": CONSTANTS, "layers": {"verdict": "done", "rows": rows}},
            }
        ]
    )
    for text in (
        "### NVIDIA Test 9000",
        "| grid_barrier_us | 1.25 |",
        "| forward, GRU | 2.00 ms | torch.nn, cuDNN | 0.50 |",
    ):
        assert text in page
    assert "**Wrong, no figure is shown:** cluster_store_step_us_H256_C4." in page
    assert "**Wrong, no speed is shown:** forward, LSTM." in page


def test_the_page_in_the_repository_is_what_the_results_say():
    found = [json.loads(path.read_text()) for path in sorted((ROOT / "bench" / "results").glob("*.json"))]
    section = device_report.section([report for report in found if "stages" in report])
    assert section in (ROOT / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize(
    "group", [pytest.param(name, marks=pytest.mark.slow if name == "radii" else ()) for name in sorted(races.GROUPS)]
)
def test_the_races_are_right_on_the_device(group, cuda_device):
    limits = {name: {"1": 1.0} for name in (*races.PRECISIONS, "float64")}
    for case in races.GROUPS[group]("cuda" if cuda_device.name == "cuda" else "cpu", True):
        row = measure(case, {"fma": limits, "copy": {"1": 1.0}}, 1)
        assert row["correct"], (case.name, row["errors"])
        assert row["peers"], case.name
        json.dumps(row)


def test_a_precision_is_put_back():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with races.precise("bf16"):
        assert torch.get_float32_matmul_precision() == "high"
    with races.precise("fp32"):
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_limits_have_the_form_of_the_roofline():
    names = ("fma_fp32", "fma_fp64", "mma_tf32", "mma_fp16", "mma_bf16")
    limits = races.roofline_of({f"{name}_tflop_per_s": 2.0 for name in names} | {"copy_gb_per_s": 3.0})
    assert limits["fma"]["tf32"]["1"] == 2e12
    assert limits["copy"]["1"] == 3e9
