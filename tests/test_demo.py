"""The demonstration at a small size: everything that it promises is written and consistent."""

import json

import pytest
import torch

from lsc_ext import nn
from lsc_ext.demo import ARMS, DemoConfig, gradient_profile, run_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    lines: list[str] = []
    config = DemoConfig(data="digits", hidden_size=8, epochs=2, seeds=2, max_images=120)
    return run_demo(folder, config, lines.append), lines, folder


def test_the_report_holds_every_network_arm_seed_and_epoch(demo):
    result, _, folder = demo
    report = json.loads((folder / "report.json").read_text())
    assert list(report["training"]) == ["6-layer ReLU RNN", "5-layer GRU"]
    for arms in report["training"].values():
        assert list(arms) == list(ARMS)
        assert all(len(seeds) == 2 and all(len(rows) == 2 for rows in seeds) for seeds in arms.values())
    assert report["data"]["sha256"]
    assert len(report["summary"]) == 4
    assert result.report["summary"][0]["network"] == "6-layer ReLU RNN"


def test_radii_move_towards_the_target_in_every_network(demo):
    for result in demo[0].report["pretraining"].values():
        for direction, target in result["targets"].items():
            distances = [
                max(abs(row["mean"] - target) for row in result[when]["rows"] if row["direction"] == direction)
                for when in ("before", "after")
            ]
            assert distances[1] < 0.5 * distances[0]


def test_the_pictures_are_there_and_the_tables_were_said(demo):
    _, lines, folder = demo
    for name in ("radii.png", "gradients.png", "accuracy.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    text = "\n".join(lines)
    assert "before" in text
    assert "after" in text
    assert "test accuracy, mean of 2 seeds" in text


def test_the_gradient_profile_is_the_gradient_of_the_summed_outputs():
    torch.manual_seed(0)
    stack = nn.RNN(3, 4, 1, nonlinearity="relu", bias=False, dtype=torch.float64)
    with torch.no_grad():
        stack.weight_ih_l0.abs_()
        stack.weight_hh_l0.copy_(0.5 * torch.eye(4))
    profile = gradient_profile(stack, torch.rand(5, 1, 3, dtype=torch.float64))
    unit = float(stack.weight_ih_l0.detach().sum(0).norm())
    assert profile == pytest.approx([unit * (2 - 0.5 ** (4 - t)) for t in range(5)])  # sum of 0.5^d, d = 0 .. 4 - t
