"""The command line, as a user meets it."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import lsc_ext as lsc
from lsc_ext.cli import main

SMALL = ["--hidden-size", "9", "--layers", "2", "--time-steps", "5", "--batch-size", "6", "--input-size", "4"]


def test_info_prints_what_build_info_says(capsys):
    assert main(["info", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["instruction_set"] == lsc.build_info()["instruction_set"]
    assert printed["torch"] == torch.__version__
    assert main(["info"]) == 0
    assert "instruction_set" in capsys.readouterr().out


def test_radii_prints_a_row_for_each_direction_and_layer(capsys):
    assert main(["radii", "--cell", "lstm", *SMALL, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["direction"], row["layer"]) for row in rows] == [("time", 0), ("time", 1), ("depth", 1)]
    assert all(row["certified"] == 1 for row in rows)


def test_radii_of_given_weights_are_those_of_the_module(tmp_path, capsys):
    model = lsc.nn.GRU(4, 9, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert main(["radii", "--cell", "gru", *SMALL, "--weights", str(tmp_path / "w.safetensors"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["mean"] for row in rows] == pytest.approx([0.5, 0.5, 0.0])  # z = 1/2, no products


def test_pretrain_saves_weights_report_and_picture(tmp_path, capsys):
    paths = {name: tmp_path / name for name in ("w.safetensors", "r.json", "p.png")}
    options = ["--save", str(paths["w.safetensors"]), "--report", str(paths["r.json"]), "--plot", str(paths["p.png"])]
    assert main(["pretrain", "--cell", "rnn_tanh", *SMALL, "--steps", "3", "--target", "0.5", *options]) == 0
    assert "after" in capsys.readouterr().out
    model = lsc.nn.RNN(4, 9, 2)
    model.load_state_dict(load_file(paths["w.safetensors"]))
    assert json.loads(paths["r.json"].read_text())["targets"] == {"time": 0.5, "depth": 0.5}
    assert paths["p.png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["radii", "--tol", "3"], ["tol", "between 0 and 1", "3.0"]),
        (["radii", "--layers", "0"], ["num_layers", "at least 1", "0"]),
        (["radii", "--batch-size", "-1"], ["--batch-size", "at least 1", "-1"]),
        (["radii", "--weights", "absent.safetensors"], ["absent.safetensors"]),
        (["pretrain", "--target", "half"], ["--target", "number or 'unbalanced'", "half"]),
        (["pretrain", "--save", "no/such/folder/w.safetensors"], ["folder that exists"]),
        (["info", "--threads", "0"], ["--threads", "at least 1", "0"]),
    ],
)
def test_bad_arguments_exit_with_2_and_say_what_was_expected(arguments, words, capsys):
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message


def test_an_unknown_choice_exits_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["radii", "--cell", "transformer"])
    assert caught.value.code == 2
    assert "transformer" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(tmp_path, capsys):
    save_file(lsc.nn.GRU(4, 5).state_dict(), tmp_path / "w.safetensors")
    assert main(["radii", "--cell", "gru", *SMALL, "--weights", str(tmp_path / "w.safetensors")]) == 2
    assert "--weights" in capsys.readouterr().err


def test_the_module_runs_as_a_program_and_helps():
    done = subprocess.run([sys.executable, "-m", "lsc_ext", "--help"], capture_output=True, text=True, check=True)
    commands = ("info", "demo", "radii", "diagnose", "pretrain", "paper", "memory", "experiments", "bench")
    assert all(command in done.stdout for command in commands)


def test_an_interrupt_exits_with_130(monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lsc_ext.cli.radii", interrupted)
    assert main(["radii", *SMALL]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(lsc.nn.ARCHITECTURES))
def test_every_architecture_is_measured_and_pretrained(name, capsys):
    assert main(["radii", "--architecture", name, *SMALL, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows
    assert all(0 <= row["mean"] < 10 for row in rows)
    assert main(["pretrain", "--architecture", name, *SMALL, "--steps", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["history"]
