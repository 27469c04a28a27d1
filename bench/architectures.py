"""Every architecture against everything the package does with one, and what pre-training reaches: the table in README.

python bench/architectures.py [--table | --cuda] [--only ROW ...] [--output bench/results/architectures.json]

All of it took 41 minutes of processes that shared 2 cores with others, nearly all of them in pre-training; the seconds
in the results are of that run, and of no use as a speed.

Letters: T time, B batch, L layers, N points.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import architecture_truths as truths
import torch
from torch import Tensor, nn

import lsc_ext as lsc
from lsc_ext.bench import machine
from lsc_ext.files import write_json, write_whole
from lsc_ext.nn import StackTrajectory
from lsc_ext.steps import StepTrajectory
from lsc_ext.testing import assert_close
from lsc_ext.trajectory import trajectory_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS, README = ROOT / "bench" / "results" / "architectures.json", ROOT / "README.md"
DIRECTIONS = ("time", "depth", "diagonal", "input", "output")
CHECKS = ("forward", "backward", *DIRECTIONS, "radius gradient")
TARGETS: dict[str, float] = {"pretrain to 1": 1.0, "pretrain to 0.5": 0.5}
MIXED = "pretrain to time 1, depth 0.5"
CUDA = "cuda"
COLUMNS = (*CHECKS, *TARGETS, CUDA)
#: Of pre-training: the largest distance to a target, the smallest certified fraction of held-out points.
ALLOWED, CERTIFIED = 0.05, 0.95
#: The smallest certified fraction of a direction's points; the radii of the others are compared too.
VOUCHED = 0.95
#: Largest relative error of results, Jacobians and radii in float64; of gradients of radii, which eigenvectors amplify.
EXACT, GRADIENT = 1e-10, 1e-7
#: The same of what the device's iteration finds.
CUDA_RADII, CUDA_GRADIENT = 1e-7, 1e-5
#: What every pre-training uses unless its row says otherwise.
PRETRAINING: dict[str, Any] = {"batch_size": 64, "max_points": 32, "seed": 0, "steps": 300}
INPUT, HIDDEN, LAYERS = 16, 24, 3


@dataclass(frozen=True)
class Row:
    """An architecture.

    Attributes:
        build: (input, hidden, layers, dtype=...) -> module.
        layers: its layers by hand, see :mod:`architecture_truths`.
        kind: of its inputs: "sequences", "samples" or "images".
        abreast: layers that read the same.
        absent: direction -> why it does not exist.
        also: pre-trainings beside the two targets.
        quick: what a small network needs beside :data:`QUICK`; None where even that takes more than seconds.
    """

    name: str
    build: Callable[..., nn.Module]
    layers: Callable[[Any], list[truths.Layer]]
    kind: str = "sequences"
    abreast: int = 1
    absent: dict[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    quick: dict[str, Any] | None = field(default_factory=dict)

    def inputs(self, steps: int, batch: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        shape = {"sequences": (steps, batch, width), "samples": (batch, width), "images": (batch, 1, 4, 4)}[self.kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.randn(*shape, dtype=dtype)

    def model(self, width: int, hidden: int, layers: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(width, hidden, layers, dtype=dtype).eval()


class NormedGRU(nn.Module):
    """A user's own cell: a GRU with a layer norm on either product, in plain torch."""

    def __init__(self, input_size: int, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.ih, self.hh = (nn.Linear(size, 3 * hidden_size, dtype=dtype) for size in (input_size, hidden_size))
        self.norm_ih, self.norm_hh = (nn.LayerNorm(3 * hidden_size, dtype=dtype) for _ in range(2))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        (ir, iz, ic), (hr, hz, hc) = self.norm_ih(self.ih(x)).chunk(3, -1), self.norm_hh(self.hh(h)).chunk(3, -1)
        z = (iz + hz).sigmoid()
        return (1 - z) * (ic + (ir + hr).sigmoid() * hc).tanh() + z * h  # type: ignore[no-any-return]


def _normed_grus(width: int, hidden: int, layers: int, dtype: torch.dtype) -> nn.Module:
    sizes = [width, *[hidden] * layers]
    return lsc.StepModel([lsc.StepModel(NormedGRU(size, hidden, dtype), hidden) for size in sizes[:layers]])


def _convolutions(width: int, hidden: int, layers: int, dtype: torch.dtype) -> nn.Module:
    channels = [1, *[max(2, hidden // 6)] * layers]
    parts = [(nn.Conv2d(a, b, 3, padding=1, dtype=dtype), nn.Tanh()) for a, b in itertools.pairwise(channels)]
    return nn.Sequential(*(module for part in parts for module in part))


def _projected(width: int, hidden: int, layers: int, dtype: torch.dtype) -> nn.Module:
    return lsc.nn.LSTM(width, hidden, layers, proj_size=hidden // 2, dtype=dtype)


def _bidirectional(width: int, hidden: int, layers: int, dtype: torch.dtype) -> nn.Module:
    return nn.GRU(width, hidden, layers, bidirectional=True, dtype=dtype)


def _row(name: str, **options: Any) -> Row:
    return Row(name, functools.partial(lsc.nn.build, name), functools.partial(truths.by_name, name), **options)


_NO_STATE = "no state, so nothing over time"
_STATELESS = {"time": _NO_STATE, "diagonal": _NO_STATE}
_RECURRENT = ("rnn_tanh", "rnn_relu", "rnn_sigmoid", "gru", "lstm", "min_gru", "ind_rnn")
_SPIKING, _LINEAR = ("lif", "alif", "alif_bipolar"), ("lru", "res_lru", "complex_diagonal", "block_diagonal")
ROWS = {
    row.name: row
    for row in (
        *(_row(name) for name in _RECURRENT),
        *(_row(name, also=(MIXED,), quick=None) for name in _SPIKING),
        *(_row(name, quick=None if name == "res_lru" else {}) for name in _LINEAR),
        *(
            _row(f"feed_forward_{phi}", kind="samples", absent=_STATELESS, quick={"batch": 800, "max_points": 128})
            for phi in ("relu", "sin", "cos", "tanh", "gelu", "swish")
        ),
        Row(
            "torch.nn.GRU, bidirectional",
            _bidirectional,
            truths.bidirectional_gru,
            abreast=2,
            absent={"diagonal": "a layer reads both directions below, whose states belong to different steps"},
        ),
        Row("LSTM with projections", _projected, functools.partial(truths.by_name, "lstm")),
        Row("StepModel (GRU with layer norm, plain torch)", _normed_grus, truths.normed_grus, quick={"hidden": 8}),
        Row("nn.Sequential (convolutions)", _convolutions, truths.convolutions, kind="images", absent=_STATELESS),
    )
}


def _output(model: nn.Module, x: Tensor) -> Tensor:
    result = model(x)
    return result[0] if isinstance(result, tuple) else result


def _twins(model: Any) -> list[Any]:
    """The model, and the same weights in our layer of a torch.nn layer or the other way round."""
    if isinstance(model, nn.GRU):
        return [model, lsc.nn.GRU.from_torch(model)]
    if hasattr(model, "to_torch") and getattr(model, "nonlinearity", None) != "sigmoid":
        return [model, model.to_torch()]
    return [model]


class Case:
    """A small network of a row and its truth over the same inputs."""

    def __init__(self, row: Row, hidden: int = 6, steps: int = 4, batch: int = 3) -> None:
        self.row, self.model = row, row.model(4, hidden, 3)
        with torch.no_grad():  # eigenvalues that coincide have no gradient
            for name, parameter in self.model.named_parameters():
                if name.startswith("recurrent_weight"):
                    parameter.copy_(torch.linspace(0.4, 1.1, hidden).roll(int(name[-1])))
        self.x = row.inputs(steps, batch, 4)
        self.size = self._run(self.x)[-1].handed_up[0, 0].numel() * row.abreast
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.readout = nn.Sequential(nn.Flatten(), nn.Linear(self.size, 7, dtype=torch.float64), nn.Tanh())

    def _run(self, x: Tensor) -> list[truths.Ran]:
        fed = x if self.row.kind == "sequences" else x.unsqueeze(0)
        return truths.run(self.row.layers(self.model), fed, self.row.abreast)

    def expected(self, x: Tensor) -> Tensor:
        ran = self._run(x)
        output = torch.cat([part.handed_up for part in ran[-self.row.abreast :]], dim=-1)
        return output if self.row.kind == "sequences" else output.squeeze(0)

    def layers_of(self, direction: str) -> range:
        count, abreast = len(self.row.layers(self.model)), self.row.abreast
        return {
            "time": range(count),
            "depth": range(abreast, count),
            "diagonal": range(abreast, count),
            "input": range(abreast),
            "output": range(count - abreast, count),
        }[direction]

    def matrices(self, direction: str) -> list[Tensor]:
        ran, composed = self._run(self.x), isinstance(trajectory_of(self.model, self.x), StepTrajectory)
        return [
            truths.jacobians(ran, direction, k, self.readout, self.row.abreast, composed)
            for k in self.layers_of(direction)
        ]

    def radii(self, direction: str) -> Tensor:
        """[L, N], of the truth."""
        return torch.stack([truths.radius(m, _is_square(direction, m)) for m in self.matrices(direction)])

    def measured(self, direction: str, **options: Any) -> lsc.RadiusEstimate:
        options.setdefault("generator", torch.Generator().manual_seed(0))
        return lsc.radii(self.model, self.x, directions=(direction,), readout=self.readout, **options)[direction]


def _is_square(direction: str, matrices: Tensor) -> bool:
    return direction not in ("input", "output") and matrices.shape[1] == matrices.shape[2]


def _flat(tensors: Any, like: Any) -> Tensor:
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in zip(tensors, like, strict=True)]
    )


def _forward(row: Row) -> dict[str, Any]:
    case = Case(row)
    with torch.no_grad():
        for model in _twins(case.model):
            assert_close("output", _output(model, case.x), case.expected(case.x), EXACT)
    return {"verdict": "yes"}


def _backward(row: Row) -> dict[str, Any]:
    """Of a random weighting of the output with respect to the input and every parameter."""
    case = Case(row)
    x = case.x.clone().requires_grad_()
    expected = case.expected(x)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    leaves = [x, *case.model.parameters()]
    truth = torch.autograd.grad(expected, leaves, upstream, allow_unused=True)
    for model in _twins(case.model):
        own = [x, *model.parameters()]
        found = torch.autograd.grad(_output(model, x), own, upstream, allow_unused=True)
        assert_close("gradient", _flat(found, own), _flat(truth, leaves), EXACT)
    return {"verdict": "yes"}


def _direction(row: Row, direction: str) -> dict[str, Any]:
    """Small Jacobians exactly; where they are square also larger ones, which the iteration has to certify."""
    case = Case(row)
    if direction in row.absent:
        assert case.measured(direction).radius.numel() == 0, f"{direction}: expected none, got some"
        return {"verdict": "no", "reason": row.absent[direction]}
    matrices = case.matrices(direction)
    for k, matrix in zip(case.layers_of(direction), matrices, strict=True):
        operator = lsc.JacobianOperator.from_model(case.model, case.x, direction, layer=k, readout=case.readout)
        assert_close("Jacobian", operator.to_dense(), matrix, EXACT)
    _compare_radii(case, direction, EXACT, case.measured(direction))
    if _is_square(direction, matrices[0]):
        large = Case(row, hidden=34, steps=2, batch=5)
        _compare_radii(large, direction, 1e-4, large.measured(direction, tol=1e-6, num_matvecs=4000))
    return {"verdict": "yes"}


def _compare_radii(case: Case, direction: str, tolerance: float, found: lsc.RadiusEstimate) -> None:
    with torch.enable_grad():
        expected = case.radii(direction).detach()
    assert bool((expected > 1e-6).any()), f"{direction}: expected radii to compare with, got zeros"
    assert_close("radii", found.radius.flatten(1), expected, tolerance)
    # A radius of zero is that of a defective matrix (rectifiers that cut every loop), which no verdict vouches for; of
    # IndRNN's other diagonal Jacobians, products of two masked matrices, the iteration vouches for nine in ten.
    certified = float(((found.status.flatten(1) == lsc.Status.converged) | (expected == 0)).double().mean())
    assert certified >= VOUCHED, f"{direction}: expected {VOUCHED:.0%} certified, got {found.counts()}"


def _radius_gradient(row: Row) -> dict[str, Any]:
    """Of the mean radius, each direction that exists, with respect to every parameter, the readout's too."""
    case = Case(row)
    leaves = [*case.model.parameters(), *case.readout.parameters()]
    for direction in DIRECTIONS:
        if direction in row.absent:
            continue
        found, expected = (
            torch.autograd.grad(radius.mean(), leaves, allow_unused=True)
            for radius in (case.measured(direction).radius, case.radii(direction))
        )
        assert_close(f"gradient of {direction}", _flat(found, leaves), _flat(expected, leaves), GRADIENT)
    return {"verdict": "yes"}


def pretrain_to(row: Row, target: float | dict[str, float], **changed: Any) -> dict[str, Any]:
    """One pre-training; ``changed`` are sizes, or options of :func:`lsc_ext.pretrain`, other than the usual ones."""
    options = {**PRETRAINING, **changed}
    sizes = {"steps_in_time": 16, "batch": 160 if row.kind == "sequences" else 800, "hidden": HIDDEN}
    sizes = {name: options.pop(name, size) for name, size in sizes.items()}
    x = row.inputs(sizes["steps_in_time"], sizes["batch"], INPUT, dtype=torch.float32)
    model = row.model(INPUT, sizes["hidden"], LAYERS, dtype=torch.float32)
    started = time.perf_counter()
    result = lsc.pretrain(model, x, target, progress=False, **options)
    seconds = time.perf_counter() - started
    rows = result.after.rows()
    worst, certified = result.deviation(), min(r["certified"] for r in rows)
    entry = {
        "verdict": "reached" if worst <= ALLOWED and certified >= CERTIFIED else "missed",
        "worst": worst,
        "certified": certified,
        "targets": result.targets,
        "means": {d: [r["mean"] for r in rows if r["direction"] == d] for d in result.after},
        "before": {d: [r["mean"] for r in result.before.rows() if r["direction"] == d] for d in result.before},
        "steps": len(result.history),
        "converged": result.converged,
        "seconds": seconds,
        "changed": changed,
    }
    if row.name in _SPIKING:
        entry["firing_rates"] = firing_rates(model, x)
    return entry


def firing_rates(model: Any, x: Tensor) -> list[float]:
    """Spikes per neuron and step of each layer."""
    trajectory = trajectory_of(model, x)
    assert isinstance(trajectory, StackTrajectory)
    return [float(spikes.mean()) for spikes in trajectory.states[:, 1:, 0].detach()]


def on_cuda(row: Row) -> dict[str, Any]:
    """All of :data:`CHECKS` that exist, of a small network on a CUDA device; the truth is computed on the CPU.

    Radii of square Jacobians by the device's iteration too, whatever the size.
    """
    with cuda_machine() as name:
        _check_on_cuda(row)
    return {"verdict": "yes", "machine": name}


def _check_on_cuda(row: Row) -> None:
    case = Case(row, hidden=5, steps=3, batch=2)
    model, readout = (copy.deepcopy(module).cuda() for module in (case.model, case.readout))
    leaves, own = [case.x.clone().requires_grad_(), *case.model.parameters()], list(model.parameters())
    expected, x = case.expected(leaves[0]), case.x.cuda().requires_grad_()
    output = _output(model, x)
    assert_close("output", output, expected, EXACT)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    truth = torch.autograd.grad(expected, leaves, upstream, allow_unused=True)
    found = torch.autograd.grad(output, [x, *own], upstream.cuda(), allow_unused=True)
    _assert_on_device(output, *found)
    assert_close("gradient", _flat(found, [x, *own]), _flat(truth, leaves), EXACT)
    leaves, own = [*leaves[1:], *case.readout.parameters()], [*own, *readout.parameters()]
    for direction in DIRECTIONS:
        if direction in row.absent:
            continue
        expected = case.radii(direction)
        for method, tolerance in (("auto", EXACT), ("krylov", CUDA_RADII)):
            estimate = lsc.radii(
                model,
                x.detach(),
                directions=(direction,),
                readout=readout,
                method=method,
                tol=CUDA_RADII / 10,
                generator=torch.Generator().manual_seed(0),
            )[direction]
            _assert_on_device(estimate.radius, estimate.status)
            assert_close(f"radii by {method}", estimate.radius.flatten(1), expected, tolerance)
        found, truth = (
            torch.autograd.grad(radius.mean(), parameters, allow_unused=True)
            for radius, parameters in ((estimate.radius, own), (expected, leaves))
        )
        assert_close(f"gradient of {direction}", _flat(found, own), _flat(truth, leaves), CUDA_GRADIENT)


def _assert_on_device(*results: Tensor | None) -> None:
    for result in results:
        assert result is None or result.device.type == "cuda", f"expected results on the device, got {result.device}"


@contextlib.contextmanager
def cuda_machine() -> Iterator[str]:
    """Inside, torch has a CUDA device: its name, or "emulated" where it is the fake one of the tests."""
    if torch.cuda.is_available():
        yield torch.cuda.get_device_name(0)
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from fake_cuda import fake_cuda

    with fake_cuda():
        yield "emulated"


#: (row, column) -> what differs from :data:`PRETRAINING` because the target asks for it.
NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    # Not enough for depth 1: with these options and 200 steps lif ends at 0.79, 0.65, alif at 0.97, 0.61 and
    # alif_bipolar at 0.91, 1.03; with lr = 0.1 and 32 points lif at 0.62, 1.32.
    # At the usual rate and 32 points the last steps are noise: depth ends at 0.60 and 0.48.
    ("lif", MIXED): {"lr": 0.005, "max_points": 128, "batch_size": 128, "steps": 150},
}


def check(row: Row, column: str) -> dict[str, Any]:
    """Runs one entry of the table; its verdict and what was measured.

    Raises:
        AssertionError: a number is wrong.
    """
    if column in TARGETS:
        return pretrain_to(row, TARGETS[column], **NEEDED.get((row.name, column), {}))
    if column == MIXED:
        return pretrain_to(row, {"time": 1.0, "depth": 0.5}, **NEEDED.get((row.name, column), {}))
    special = {"forward": _forward, "backward": _backward, "radius gradient": _radius_gradient, CUDA: on_cuda}
    return special[column](row) if column in special else _direction(row, column)


BEGIN, END = "<!-- architectures -->\n", "<!-- /architectures -->\n"
TITLES = ("forward", "backward", "time", "depth", "diag.", "input", "output", "gradient", "to 1", "to 0.5", "cuda")


#: Small enough for a test to pre-train in a second or two; what a row needs beside it.
QUICK: dict[str, Any] = {
    "hidden": 12,
    "steps_in_time": 6,
    "batch": 160,
    "batch_size": 32,
    "max_points": 24,
    "steps": 80,
    "tolerance": 0.03,
    "patience": 2,
}


def quick_column(row: Row) -> str:
    """The target that :func:`lsc_ext.pretrain` takes by default for several layers of this kind."""
    return "pretrain to 0.5" if row.kind == "sequences" else "pretrain to 1"


def pretrain_quickly(row: Row) -> dict[str, Any]:
    """As :func:`pretrain_to`, of a small network to its default target."""
    return pretrain_to(row, TARGETS[quick_column(row)], **{**QUICK, **(row.quick or {})})


def columns_of(row: Row) -> tuple[str, ...]:
    """What is run of a row: the columns of the table and what its notes say beside them."""
    return (*COLUMNS, *row.also)


SLOPE = (
    "Spiking layers: along depth J is the surrogate's slope, at most 0.5, times the weights, and larger weights take "
    "potentials away from the threshold, where the slope is small. No rate or number of points that was tried brought "
    "every layer to 1."
)


def table(report: dict[str, Any]) -> str:
    """The lines between the two markers in README: the table and its notes."""
    notes: list[str] = []

    def mark(note: str) -> str:
        if note not in notes:
            notes.append(note)
        return f"<sup>{notes.index(note) + 1}</sup>"

    lines = ["| network | " + " | ".join(TITLES) + " |", "|---|" + ":-:|" * len(TITLES)]
    for name, entries in report["rows"].items():
        cells = []
        for column in COLUMNS:
            entry = entries[column]
            if column == CUDA and entry["verdict"] == "yes":
                cells.append(entry["machine"])
            elif entry["verdict"] in ("yes", "no"):
                cells.append("✓" if entry["verdict"] == "yes" else "–" + mark(entry["reason"]))
            elif entry["verdict"] == "reached":
                needed = _needed(entry)
                cells.append(f"{entry['worst']:.2f}{mark(needed) if needed else ''}")
            elif entry["verdict"] == "missed":
                why = mark(SLOPE) + " " if "firing_rates" in entry else ""
                cells.append(f"**{entry['worst']:.2f}**{why}{mark(_missed(name, entries, column))}")
            else:
                cells.append("**wrong**" + mark(entry["reason"]))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines) + "\n"


def _needed(entry: dict[str, Any]) -> str:
    """What was changed to get there."""
    return ", ".join(f"`{name}={value}`" for name, value in entry["changed"].items())


def _missed(name: str, entries: dict[str, Any], column: str) -> str:
    """What was reached instead, and for spiking layers why."""
    entry = entries[column]
    means = "; ".join(f"{d} " + ", ".join(f"{m:.2f}" for m in row) for d, row in entry["means"].items())
    note = f"`{name}`: reached {means}"
    if "firing_rates" not in entry:
        return note + "."
    note += ", at firing rates " + ", ".join(f"{rate:.0%}" for rate in entry["firing_rates"]) + "."
    mixed = entries[MIXED]
    goal = "{time: 1, depth: 0.5}"
    if mixed["verdict"] == "reached":
        needed = f" with {_needed(mixed)}" if mixed["changed"] else ""
        return note + f" `target={goal}` is reached within {mixed['worst']:.2f}{needed}."
    return note + f" `target={goal}` is missed by {mixed['worst']:.2f}."


def write_readme(report: dict[str, Any]) -> None:
    """Rewrites what is between the markers."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    write_whole(README, (before + BEGIN + table(report) + END + after).encode())


def main() -> int:
    """Runs every entry; 1 where a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write README from the results that are there")
    parser.add_argument(
        "--cuda",
        action="store_true",
        help="the column cuda alone: on a GPU, or where there is none on the emulated device",
    )
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), metavar="ROW", help="run these, keep the others")
    options = parser.parse_args()
    report: dict[str, Any] = {"rows": {}}
    if options.output.exists():
        report = json.loads(options.output.read_text())
    failed = 0
    for name in () if options.table else options.only or ROWS:
        entries: dict[str, Any] = report["rows"].get(name, {})
        for column in columns_of(ROWS[name]):
            if (column == CUDA) != options.cuda:
                continue
            started = time.perf_counter()
            try:
                entries[column] = check(ROWS[name], column)
            except AssertionError as error:
                entries[column] = {"verdict": "wrong", "reason": str(error)}
                failed += 1
            entries[column].setdefault("seconds", time.perf_counter() - started)
            shown = entries[column].get("worst", "")
            print(f"{name:<44}{column:<30}{entries[column]['verdict']:<9}{shown:<9.4}", flush=True)
        report["rows"][name] = {column: entries[column] for column in columns_of(ROWS[name]) if column in entries}
        report["rows"] = {known: report["rows"][known] for known in ROWS if known in report["rows"]}
        conditions = {key: report[key] for key in report if key != "rows"} if options.cuda else _conditions()
        write_json(options.output, {**conditions, "rows": report["rows"]})
    if failed == 0 and all(list(report["rows"].get(name, ())) == list(columns_of(ROWS[name])) for name in ROWS):
        write_readme(report)
    return 1 if failed else 0


def _conditions() -> dict[str, Any]:
    return {
        "machine": machine(),
        "build": lsc.build_info(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "pretraining": {"input": INPUT, "hidden": HIDDEN, "layers": LAYERS, **PRETRAINING},
    }


if __name__ == "__main__":
    sys.exit(main())
