"""The column cuda of the table of architectures: every entry runs again, on a GPU or on the device code on the host."""

import json
import os

import architectures
import pytest
import torch
from architectures import CUDA, RESULTS, ROWS

import lsc_ext as lsc
from lsc_ext.operator import StepOperator

REPORT = json.loads(RESULTS.read_text())


# Emulated for a second a launch; what they are made of is in the others.
LONG = (
    "res_lru",
    "lru",
    "complex_diagonal",
    "alif",
    "LSTM with projections",
    "torch.nn.GRU, bidirectional",
    "StepModel (GRU with layer norm, plain torch)",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in ROWS])
def test_entry_is_what_was_recorded(name):
    recorded, found = REPORT["rows"][name][CUDA], architectures.check(ROWS[name], CUDA)
    assert recorded["verdict"] == found["verdict"], f"{name}: recorded {recorded}, found {found}"
    if os.environ.get("LSC_FAIL_WITHOUT_CUDA") == "1":
        assert found["machine"] != "emulated"


def test_what_was_recorded_says_where():
    assert all(row[CUDA].get("machine") or row[CUDA]["reason"] for row in REPORT["rows"].values())


def test_a_wrong_product_on_the_device_is_caught(monkeypatch):
    right = StepOperator._product

    def off(self, v, transpose, index):
        return right(self, v, transpose, index) * (1 + 1e-6)

    monkeypatch.setattr(StepOperator, "_product", off)
    with pytest.raises(AssertionError, match="radii by auto: relative error"):
        architectures.check(ROWS["gru"], CUDA)


def test_a_forward_pass_that_left_the_device_is_caught(monkeypatch):
    right = lsc.nn.GRU.forward

    def on_the_host(self, input, hx=None):
        output, last = right(self, input, hx)
        return output.cpu(), last

    monkeypatch.setattr(lsc.nn.GRU, "forward", on_the_host)
    with pytest.raises(AssertionError, match="expected results on the device, got cpu"):
        architectures.check(ROWS["gru"], CUDA)


def test_a_device_is_there_only_inside():
    with architectures.cuda_machine():
        assert torch.zeros(1, device="cuda").device.type == "cuda"
