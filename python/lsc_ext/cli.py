"""The command line, ``python -m lsc_ext COMMAND``; ``--help`` lists the commands.

Exit codes: 0 done; 1 done, but a correctness check or a run failed; 2 bad arguments or missing packages; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

import lsc_ext
from lsc_ext import nn
from lsc_ext.bench import GROUPS, run_bench
from lsc_ext.data import SOURCES, load_images
from lsc_ext.demo import DemoConfig, run_demo
from lsc_ext.diagnose import diagnose
from lsc_ext.experiments.command import GROUPS as EXPERIMENT_GROUPS
from lsc_ext.experiments.command import IMAGES, KNOWN, Options, listing, run_experiments
from lsc_ext.experiments.text import TEXTS
from lsc_ext.explain import explain
from lsc_ext.files import write_json, write_whole
from lsc_ext.operator import DIRECTIONS
from lsc_ext.paper import FIGURE_GROUPS, FIGURES, MEMORY_FIGURES, MEMORY_GROUPS, Figure, chosen_figures, run_figure
from lsc_ext.paper.deep_block import NORMS, RECURRENCES
from lsc_ext.paper.propagation import OBJECTIVES
from lsc_ext.plot import FORMATS
from lsc_ext.pretrain import MOVES, PRESETS, PretrainConfig, pretrain
from lsc_ext.pretrain.config import STOPS
from lsc_ext.radii import radii
from lsc_ext.spectral import METHODS

_PAPER_SIZES = {
    "layers": "how many",
    "time_steps": "length of the sequences",
    "hidden_size": "units of every layer",
    "batch_size": "sequences",
    "steps": "most steps of pre-training",
    "train_steps": "steps of training after it",
    "seeds": "networks to average over",
    "draws": "paths to draw",
    "skip": "first steps to leave out",
}
# Sizes of the figures of the second.
_MEMORY_SIZES = {
    "points": "of every curve",
    "steps": "of a run of learning, or length of the sequences",
    "draws": "random diagonal networks",
    "networks": "random dense networks",
    "sequences": "random sequences",
    "features": "of each input",
    "hidden_size": "units",
    "layers": "blocks of deep networks",
    "time_steps": "length of the sequences that networks read",
    "batch_size": "sequences that deep networks read",
    "seeds": "networks to average over",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.threads is not None:
            if options.threads < 1:
                raise ValueError(f"--threads: expected at least 1, got {options.threads}")
            torch.set_num_threads(options.threads)
        return int(options.run(options))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, ModuleNotFoundError, OSError) as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lsc_ext",
        description="Will the gradients of a recurrent network explode or vanish? Measure its step Jacobians' spectral "
        "radii, and pre-train it to the Local Stability Condition.",
        epilog="Exit codes: 0 done; 1 a correctness check or a run failed; 2 bad arguments; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"lsc_ext {lsc_ext.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        sub.add_argument("--threads", type=int, default=None, help="threads to use; torch's own number if absent")
        return sub

    command("info", _info, "what is installed and compiled, and what will be used")

    demo = command("demo", _demo, "measure, pre-train and train two deep networks on real images")
    demo.add_argument("--output", type=Path, default=Path("lsc_demo"), help="folder for the report and the pictures")
    demo.add_argument("--data", choices=sorted(SOURCES), default="mnist", help="images, read row by row")
    demo.add_argument("--hidden-size", type=int, default=DemoConfig.hidden_size, help="units of every layer")
    demo.add_argument("--epochs", type=int, default=DemoConfig.epochs, help="of training")
    demo.add_argument("--seeds", type=int, default=DemoConfig.seeds, help="runs of each arm")
    demo.add_argument("--max-images", type=int, default=None, help="train on this many images only; all if absent")

    measure = command("radii", _radii, "spectral radii of a network, by direction and layer")
    _model_options(measure)
    measure.add_argument("--directions", nargs="+", choices=DIRECTIONS[:4], default=["time", "depth"], help="Jacobians")
    measure.add_argument("--method", choices=METHODS, default="auto", help="how a radius is estimated")
    measure.add_argument("--tol", type=float, default=1e-3, help="relative residual of a converged point")
    measure.add_argument("--max-points", type=int, default=256, help="points measured per layer")
    measure.add_argument("--explain", action="store_true", help="find no radius, say what would find it and why")

    doctor = command(
        "diagnose", _diagnose, "radii, gradients, products of steps and memory of a network, and what to do"
    )
    _model_options(doctor)
    doctor.add_argument("--steps", type=int, default=16, help="of the products whose gain and radius are measured")
    doctor.add_argument("--max-points", type=int, default=256, help="points measured per layer and direction")
    doctor.add_argument("--plot", type=Path, default=None, help="draw radii and gradients to this PNG or SVG file")
    doctor.add_argument("--no-memory", action="store_true", help="leave out how states move with parameters")

    repair = command("pretrain", _pretrain, "bring a network's radii to a target and save its weights")
    _model_options(repair)
    defaults = PretrainConfig()
    repair.add_argument("--target", default=None, help="a number or 'unbalanced'; 1 for one layer, else 0.5, if absent")
    repair.add_argument(
        "--preset", choices=list(PRESETS), default=None, help="a schedule of the paper, which the options below change"
    )
    repair.add_argument(
        "--directions", nargs="+", choices=DIRECTIONS[:4], default=None, help="the model's own, if absent"
    )
    moves = f"how weights are changed; {' '.join(defaults.moves)}, or the preset's, if absent"
    repair.add_argument("--moves", nargs="+", choices=MOVES, default=None, help=moves)
    steps = f"most steps to take; {defaults.steps}, or the preset's, if absent"
    repair.add_argument("--steps", type=int, default=None, help=steps)
    tolerance = f"distance to the target that is enough; {defaults.tolerance}, or the preset's, if absent"
    repair.add_argument("--tolerance", type=float, default=None, help=tolerance)
    stop = f"when a layer counts as there; {defaults.stop}, or the preset's, if absent"
    repair.add_argument("--stop", choices=STOPS, default=None, help=stop)
    repair.add_argument("--save", type=Path, default=None, help="write the weights to this .safetensors file")
    repair.add_argument("--report", type=Path, default=None, help="write the measurements to this JSON file")
    repair.add_argument("--plot", type=Path, default=None, help="draw radii and history to this PNG file")

    paper = command(
        "paper", _paper, "figures of arXiv 2308.12075 from numbers computed here and now; lists them if none"
    )
    paper.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join((*FIGURES, *FIGURE_GROUPS))}")
    paper.add_argument("--folder", type=Path, default=Path("lsc_paper"), help="where NAME.json and the picture go")
    paper.add_argument("--format", choices=FORMATS, default="svg", help="of the pictures")
    paper.add_argument("--seed", type=int, default=0, help="of weights, data and start vectors")
    paper.add_argument(
        "--data", choices=["normal", *sorted(SOURCES)], default=None, help="sequences to run networks on"
    )
    paper.add_argument(
        "--architectures", nargs="+", choices=sorted(nn.ARCHITECTURES), default=None, metavar="NAME", help="networks"
    )
    paper.add_argument("--targets", nargs="+", default=None, metavar="RHO", help="numbers, or 'unbalanced'")
    for name, text in _PAPER_SIZES.items():
        paper.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=None, help=f"{text}; the figure's own if absent"
        )

    memory = command(
        "memory", _memory, "figures of arXiv 2405.21064 from numbers computed here and now; lists them if none"
    )
    memory.add_argument(
        "figures", nargs="*", metavar="FIGURE", help=f"of {', '.join((*MEMORY_FIGURES, *MEMORY_GROUPS))}"
    )
    memory.add_argument("--folder", type=Path, default=Path("lsc_memory"), help="where NAME.json and the picture go")
    memory.add_argument("--format", choices=FORMATS, default="svg", help="of the pictures")
    memory.add_argument("--seed", type=int, default=0, help="of random networks and sequences")
    memory.add_argument("--rhos", type=float, nargs="+", default=None, metavar="RHO", help="autocorrelations of inputs")
    memory.add_argument("--teachers", type=float, nargs="+", default=None, metavar="LAMBDA", help="what is learned")
    memory.add_argument(
        "--recurrences", nargs="+", choices=list(RECURRENCES), default=None, help="of deep networks; all if absent"
    )
    memory.add_argument(
        "--norms", nargs="+", choices=NORMS, default=None, help="of deep networks; none, layer if absent"
    )
    memory.add_argument("--memories", type=float, nargs="+", default=None, metavar="STEPS", help="of deep networks")
    memory.add_argument("--objective", choices=OBJECTIVES, default=None, help="of deep networks; next if absent")
    for name, text in _MEMORY_SIZES.items():
        memory.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=None, help=f"{text}; the figure's own if absent"
        )

    experiments = command(
        "experiments", _experiments, "the papers' training experiments; goes on where it stopped; lists them if none"
    )
    experiments.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*KNOWN, *EXPERIMENT_GROUPS))}")
    experiments.add_argument("--folder", type=Path, default=Options.folder, help="where results, tables and picture go")
    experiments.add_argument("--full", action="store_true", help="the paper's grid and sizes")
    experiments.add_argument("--workers", type=int, default=None, help="processes; one per processor if absent")
    experiments.add_argument(
        "--seeds", type=int, nargs="+", default=None, help="3 of them if absent, with --full 4 or 10"
    )
    experiments.add_argument("--images", choices=IMAGES, default=Options.images, help="5,000 of MNIST, or its files")
    experiments.add_argument("--text", choices=sorted(TEXTS), default=Options.text, help="for the language model")
    experiments.add_argument("--data", type=Path, default=None, help="folder with files of MNIST, CIFAR, SHD, PTB")
    experiments.add_argument(
        "--page",
        type=Path,
        default=None,
        help="page whose tables are replaced",
    )
    experiments.add_argument(
        "--tables", action="store_true", help="run nothing, write tables and picture of what is there"
    )

    bench = command("bench", _bench, "correctness first, then speed against the strongest peers")
    bench.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    bench.add_argument(
        "--group",
        nargs="+",
        action="extend",
        choices=list(GROUPS),
        default=None,
        metavar="NAME",
        help=f"only these of {', '.join(GROUPS)}",
    )
    bench.add_argument(
        "--output", type=Path, default=None, help="also write the results to this JSON file; with --group, into it"
    )
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--architecture",
        "--cell",
        choices=sorted(nn.ARCHITECTURES),
        default="gru",
        metavar="NAME",
        help=f"one of {', '.join(sorted(nn.ARCHITECTURES))}",
    )
    parser.add_argument("--layers", type=int, default=3, help="how many")
    parser.add_argument("--hidden-size", type=int, default=64, help="units of every layer")
    parser.add_argument(
        "--weights", type=Path, default=None, help="a .safetensors state dict; random weights if absent"
    )
    parser.add_argument("--data", choices=["normal", *sorted(SOURCES)], default="normal", help="sequences to run it on")
    parser.add_argument("--input-size", type=int, default=28, help="of normal data; images bring their own")
    parser.add_argument("--time-steps", type=int, default=28, help="of normal data; images bring their own")
    parser.add_argument("--batch-size", type=int, default=64, help="sequences")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of weights and data")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data and start vectors")


def _model_and_data(options: argparse.Namespace) -> tuple[Module, Tensor]:
    for name in ("input_size", "time_steps", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(options, name)}")
    dtype = torch.float32 if options.dtype == "float32" else torch.float64
    torch.manual_seed(options.seed)
    if options.data == "normal":
        x = torch.randn(options.time_steps, options.batch_size, options.input_size, dtype=dtype)
    else:
        images = load_images(options.data)
        x = images.x[:, torch.randperm(images.labels.numel())[: options.batch_size]].to(dtype)
    model = nn.build(options.architecture, x.shape[2], options.hidden_size, options.layers, dtype=dtype)
    if isinstance(model, nn.FeedForward):
        x = x.flatten(0, 1)  # every step a sample
    if options.weights is not None:
        from safetensors.torch import load_file

        try:
            model.load_state_dict(load_file(options.weights))
        except RuntimeError as error:
            raise ValueError(f"--weights: expected the state dict of {model}, got another: {error}") from error
    return model, x


def _print(options: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    print(json.dumps(content, indent=2) if options.json else text)


def _info(options: argparse.Namespace) -> int:
    content = {
        **lsc_ext.build_info(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "architectures": sorted(nn.ARCHITECTURES),
    }
    width = max(map(len, content))
    lines = [
        f"{key:<{width}}  {', '.join(map(str, v)) or 'none' if isinstance(v, list) else v}"
        for key, v in content.items()
    ]
    _print(options, content, "\n".join(lines))
    return 0


def _demo(options: argparse.Namespace) -> int:
    config = DemoConfig(
        data=options.data,
        hidden_size=options.hidden_size,
        epochs=options.epochs,
        seeds=options.seeds,
        max_images=options.max_images,
    )
    for name in ("hidden_size", "epochs", "seeds"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(config, name)}")
    say = (lambda line: print(line, file=sys.stderr)) if options.json else (lambda line: print(line, flush=True))
    result = run_demo(options.output, config, say)
    if options.json:
        print(json.dumps(result.report, indent=2))
    return 0


def _radii(options: argparse.Namespace) -> int:
    model, x = _model_and_data(options)
    if options.explain:
        with torch.no_grad():
            plan = explain(model, x, directions=options.directions, method=options.method, tol=options.tol)
        _print(options, plan.to_dict(), str(plan))
        return 0
    with torch.no_grad():
        report = radii(
            model,
            x,
            directions=options.directions,
            method=options.method,
            tol=options.tol,
            max_points=options.max_points,
            generator=torch.Generator().manual_seed(options.seed),
        )
    _print(options, report.to_dict(), str(report))
    return 0


def _check_folders(*paths: Path | None) -> None:
    """Before anything is computed that could then not be written."""
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise ValueError(f"{path}: expected a file in a folder that exists, got none at {path.resolve().parent}")


def _diagnose(options: argparse.Namespace) -> int:
    _check_folders(options.plot)
    if options.max_points < 1:
        raise ValueError(f"--max-points: expected at least 1, got {options.max_points}")
    model, x = _model_and_data(options)
    generator = torch.Generator().manual_seed(options.seed)
    found = diagnose(
        model,
        x,
        steps=options.steps,
        max_points=options.max_points,
        memory=not options.no_memory,
        generator=generator,
    )
    if options.plot is not None:
        found.plot(options.plot)
    _print(options, found.to_dict(), str(found))
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    target = None if options.target is None else _target(options.target, "--target")
    _check_folders(options.save, options.report, options.plot)
    model, x = _model_and_data(options)
    given = {name: getattr(options, name) for name in ("directions", "moves", "steps", "tolerance", "stop")}
    changed = {name: value for name, value in given.items() if value is not None}
    result = pretrain(model, x, target, preset=options.preset, seed=options.seed, **changed)
    if options.save is not None:
        from safetensors.torch import save

        write_whole(options.save, save(model.state_dict()))
    if options.report is not None:
        result.save(options.report)
    if options.plot is not None:
        result.plot(options.plot)
    _print(options, result.to_dict(), str(result))
    return 0


def _paper(options: argparse.Namespace) -> int:
    if not options.figures:
        return _list_figures(options, FIGURES)
    names = ("data", "architectures", *_PAPER_SIZES)
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.targets is not None:
        given["targets"] = [_target(text, "--targets") for text in options.targets]
    return _run_figures(options, chosen_figures(options.figures, list(given)), {"seed": options.seed, **given})


def _memory(options: argparse.Namespace) -> int:
    if not options.figures:
        return _list_figures(options, MEMORY_FIGURES)
    names = ("rhos", "teachers", "recurrences", "norms", "memories", "objective", *_MEMORY_SIZES)
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    figures = chosen_figures(options.figures, list(given), MEMORY_FIGURES, MEMORY_GROUPS)
    return _run_figures(options, figures, {"seed": options.seed, **given})


def _list_figures(options: argparse.Namespace, table: Mapping[str, Figure]) -> int:
    content = {name: figure.element for name, figure in table.items()}
    _print(options, content, "\n".join(f"{name:<12}{element}" for name, element in content.items()))
    return 0


def _run_figures(options: argparse.Namespace, figures: Sequence[Figure], given: dict[str, Any]) -> int:
    report = {}
    for figure in figures:
        numbers, files = run_figure(figure, options.folder, file_format=options.format, **given)
        report[figure.name] = {**numbers, "files": [str(file) for file in files]}
        if not options.json:
            print("\n".join((f"{figure.name}: {figure.element}", *(f"  {line}" for line in numbers["findings"]))))
            print(f"  wrote {', '.join(map(str, files))}", flush=True)
    if options.json:
        print(json.dumps(report, indent=2))
    return 0


def _experiments(options: argparse.Namespace) -> int:
    given = {
        name: getattr(options, name)
        for name in ("folder", "full", "workers", "images", "text", "data", "page", "tables")
    }
    settings = Options(**given, seeds=None if options.seeds is None else tuple(options.seeds))
    if not options.names:
        content = listing(settings)
        lines = (f"{n:<12}{row['element']} ({row['done']} of {row['runs']} runs done)" for n, row in content.items())
        _print(options, content, "\n".join(lines))
        return 0
    say = (lambda line: print(line, file=sys.stderr)) if options.json else (lambda line: print(line, flush=True))
    outcome = run_experiments(options.names, settings, say)
    if options.json:
        print(json.dumps(outcome.report, indent=2))
    else:
        for name in (name for name in KNOWN if name in outcome.report):
            print(f"{name}: {KNOWN[name]}")
            for line in outcome.report[name].get("findings", ()):
                print(f"  {line}")
            for text, share in outcome.report[name].get("shares", {}).items():
                low, high = share["interval"]
                print(f"  {text}: {share['wins']} of {share['pairs']}, {low:.0%} to {high:.0%}: {share['verdict']}")
            for reason, count in Counter(outcome.report[name].get("missing", {}).values()).items():
                print(f"  {count} not run: {reason}")
        print(f"wrote {', '.join(map(str, outcome.files))}")
    for line in outcome.failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _target(text: str, option: str) -> float | str:
    """A number, or 'unbalanced'."""
    if text == "unbalanced":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option}: expected a number or 'unbalanced', got {text!r}") from None


def _bench(options: argparse.Namespace) -> int:
    say = (lambda line: print(line, file=sys.stderr)) if options.json else (lambda line: print(line, flush=True))
    output, earlier = options.output, None
    if options.group is not None and output is not None and output.exists():
        earlier = json.loads(output.read_text())
    keep = (lambda report: None) if output is None else (lambda report: write_json(output, report))
    report = run_bench(options.quick, say, options.group, earlier, keep)
    if options.json:
        print(json.dumps(report, indent=2))
    return 0 if report["correct"] else 1
