"""The whole story on real images: measure a deep recurrent network, pre-train it, and train it with and without.

Letters: T time, N images, I pixels per row, H hidden size.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsc_ext import nn
from lsc_ext.data import Images, load_images
from lsc_ext.files import write_json
from lsc_ext.plot import plot_accuracy, plot_gradient_profiles, plot_radii
from lsc_ext.pretrain import PretrainResult, pretrain

ARMS = ("default initialisation", "pre-trained to 0.5")
Report = Callable[[str], None]


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of the demonstration.

    Attributes:
        data: "mnist" or "digits".
        hidden_size: H of every layer.
        epochs: of training.
        batch_size: images per training step.
        lr: Adam's learning rate.
        seeds: how many, from 0.
        held_out: fraction of the images for testing.
        max_images: use only the first of the shuffled images; None for all.
    """

    data: str = "mnist"
    hidden_size: int = 64
    epochs: int = 6
    batch_size: int = 50
    lr: float = 1e-3
    seeds: int = 3
    held_out: float = 0.2
    max_images: int | None = None


@dataclass
class DemoResult:
    """Everything that was measured.

    Attributes:
        report: the JSON report.
        files: what was written.
    """

    report: dict[str, Any]
    files: list[Path] = field(default_factory=list)


class Classifier(torch.nn.Module):
    """A recurrent stack and a linear readout; the logits are averaged over time."""

    def __init__(self, stack: nn.Recurrent, classes: int) -> None:
        super().__init__()
        self.stack = stack
        self.readout = torch.nn.Linear(stack.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X [T, N, I] -> logits [N, classes]."""
        return self.readout(self.stack(x)[0]).mean(0)  # type: ignore[no-any-return]


def networks(input_size: int, hidden_size: int) -> dict[str, Callable[[], nn.Recurrent]]:
    """The two stacks of the demonstration."""
    return {
        "6-layer ReLU RNN": lambda: nn.RNN(input_size, hidden_size, 6, nonlinearity="relu"),
        "5-layer GRU": lambda: nn.GRU(input_size, hidden_size, 5),
    }


def gradient_profile(stack: nn.Recurrent, x: Tensor) -> list[float]:
    """Norm of the gradient of the sum of all top outputs with respect to x[t], for each t; x [T, N, I]."""
    leaf = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(stack(leaf)[0].sum(), leaf)
    return gradient.square().sum((1, 2)).sqrt().tolist()


def train(model: Classifier, images: Images, test: Images, config: DemoConfig, seed: int) -> list[dict[str, float]]:
    """Adam on the cross entropy; one row per epoch: training loss, test accuracy."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    order = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(config.epochs):
        model.train()
        total, count = 0.0, 0
        for batch in torch.randperm(images.labels.numel(), generator=order).split(config.batch_size):
            loss = torch.nn.functional.cross_entropy(model(images.x[:, batch]), images.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total + float(loss.detach()) * batch.numel(), count + batch.numel()
        model.eval()
        with torch.no_grad():
            accuracy = float((model(test.x).argmax(1) == test.labels).double().mean())
        rows.append({"loss": total / count, "accuracy": accuracy})
    return rows


def run_demo(
    folder: str | Path, config: DemoConfig | None = None, say: Report = print, progress: bool | None = None
) -> DemoResult:
    """Runs the demonstration and writes report.json, radii.png, gradients.png and accuracy.png to ``folder``.

    Args:
        folder: made where it does not exist.
        config: sizes; None for the defaults (MNIST rows, under 4 minutes on 2 cores).
        say: called with each line of text.
        progress: progress bar of the pre-training; None for only on a terminal.

    Raises:
        ModuleNotFoundError: a package with data or for plotting is missing; the message says how to install it.
    """
    import matplotlib  # a missing package is worth knowing before the work, not after

    config = config or DemoConfig()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    images = load_images(config.data)
    train_images, test_images = images.split(config.held_out, seed=0)
    if config.max_images is not None:
        train_images, _ = train_images.split(1 - min(1, config.max_images / train_images.labels.numel()), seed=1)
    classes = int(images.labels.max()) + 1
    say(
        f"{config.data}: {train_images.labels.numel()} training and {test_images.labels.numel()} test images, read as "
        f"{images.x.shape[0]} rows of {images.x.shape[2]} pixels"
    )
    pretraining: dict[str, dict[str, Any]] = {}
    profiles: dict[str, dict[str, list[float]]] = {}
    training: dict[str, dict[str, list[list[dict[str, float]]]]] = {}
    for name, make in networks(images.x.shape[2], config.hidden_size).items():
        training[name] = {arm: [] for arm in ARMS}
        for seed in range(config.seeds):
            for arm in ARMS:
                torch.manual_seed(seed)
                model = Classifier(make(), classes)
                clock = time.perf_counter()
                if arm == ARMS[1]:
                    before = gradient_profile(model.stack, test_images.x[:, :128])
                    result = pretrain(model.stack, train_images.x, 0.5, seed=seed, progress=progress)
                    spent = time.perf_counter() - clock
                    if seed == 0:
                        pretraining[name] = result.to_dict()
                        profiles[name] = {
                            ARMS[0]: before,
                            ARMS[1]: gradient_profile(model.stack, test_images.x[:, :128]),
                        }
                        say(_pretraining_text(name, result, spent))
                    else:
                        say(f"{name}, seed {seed}: pre-trained in {spent:.1f} s, {len(result.history)} steps")
                    clock = time.perf_counter()
                rows = train(model, train_images, test_images, config, seed)
                training[name][arm].append(rows)
                say(
                    f"{name}, seed {seed}, {arm}: test accuracy {rows[-1]['accuracy']:.3f} after epoch {config.epochs} "
                    f"({time.perf_counter() - clock:.0f} s)"
                )
    summary = _summary(training)
    say("\n" + _summary_text(summary, config))
    report = {
        "data": {"name": images.name, "sha256": images.sha256},
        "config": vars(config),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "pretraining": pretraining,
        "gradient_profiles": profiles,
        "training": training,
        "summary": summary,
        "seconds": time.perf_counter() - started,
        "matplotlib": matplotlib.__version__,
    }
    accuracy = {
        name: {arm: [[row["accuracy"] for row in rows] for rows in seeds] for arm, seeds in arms.items()}
        for name, arms in training.items()
    }
    files = [
        write_json(folder / "report.json", report),
        plot_radii(pretraining, folder / "radii.png"),
        plot_gradient_profiles(profiles, folder / "gradients.png"),
        plot_accuracy(accuracy, folder / "accuracy.png"),
    ]
    say(f"{report['seconds']:.0f} s in all; wrote " + ", ".join(str(file) for file in files))
    return DemoResult(report, files)


def _pretraining_text(name: str, result: PretrainResult, seconds: float) -> str:
    return f"\n{name}, seed 0, {seconds:.1f} s\n{result}\n"


def _summary(training: dict[str, dict[str, list[list[dict[str, float]]]]]) -> list[dict[str, Any]]:
    rows = []
    for name, arms in training.items():
        for arm, seeds in arms.items():
            first, last = ([rows[i]["accuracy"] for rows in seeds] for i in (0, -1))
            rows.append(
                {
                    "network": name,
                    "arm": arm,
                    "first_epoch": sum(first) / len(first),
                    "last_epoch": sum(last) / len(last),
                    "lowest": min(last),
                    "highest": max(last),
                }
            )
    return rows


def _summary_text(summary: list[dict[str, Any]], config: DemoConfig) -> str:
    lines = [
        f"test accuracy, mean of {config.seeds} seeds (lowest .. highest)",
        f"{'network':<18}{'arm':<26}{'1st epoch':>10}{f'epoch {config.epochs}':>10}   range",
    ]
    lines += [
        f"{row['network']:<18}{row['arm']:<26}{row['first_epoch']:>10.3f}{row['last_epoch']:>10.3f}"
        f"   {row['lowest']:.3f} .. {row['highest']:.3f}"
        for row in summary
    ]
    return "\n".join(lines)
