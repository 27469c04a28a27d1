"""Figure 7 of arXiv 2405.21064: an angle that is learned by Adam and by steps against the sign."""

import cmath
import json
import math
from pathlib import Path

import pytest
import torch

from lsc_ext import memory
from lsc_ext.paper import angle

COMMITTED = json.loads((Path(__file__).parent.parent / "docs" / "memory" / "angle.json").read_text())
TEACHER = cmath.rect(0.99, math.pi / 100)
NAMES = list(angle.PHASES)
F64 = torch.float64


@pytest.fixture(scope="module")
def paths():
    """Both optimisers' 5,000 steps."""
    return {name: angle.run(name, 5000) for name in angle.OPTIMIZERS}


def losses(path, name: str):
    return memory.unit_loss(angle.eigenvalues(name, path[:, NAMES.index(name)]), TEACHER)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [(2.6, 0.4), (1.2, -1.5), (0.3, 2.0), (2.0, 12.0)])
def test_slopes_are_those_of_the_loss(name, at):
    w, v = (torch.tensor(z, dtype=F64, requires_grad=True) for z in at)
    nu = w.tanh()
    theta = {
        "polar": lambda: v,
        "exp": lambda: v.exp(),
        "optimal": lambda: v * (1 - nu**2) / (nu * (1 + nu**2).sqrt()),
    }[name]()
    lam = torch.complex(nu * theta.cos(), nu * theta.sin())
    found = angle.eigenvalues(name, torch.tensor(at, dtype=F64))
    assert abs(complex(found) - complex(lam.detach())) < 1e-14
    expected = torch.autograd.grad(memory.unit_loss(lam, TEACHER), (w, v))
    assert angle.gradient(name, *at) == pytest.approx([float(z) for z in expected], rel=1e-9)


def test_the_optimal_phase_is_the_package_s():
    p = torch.tensor([[1.3, 0.7], [2.0, -3.0]], dtype=F64)
    found = memory.eigenvalue("optimal", p[:, 0], p[:, 1])
    expected = torch.polar((-found.decay).exp(), found.phase)
    torch.testing.assert_close(angle.eigenvalues("optimal", p), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("theta", [angle.START, angle.TEACHER])
def test_start_and_teacher_are_where_they_should_be(name, theta):
    found = complex(angle.eigenvalues(name, angle._start(name, theta)))
    assert abs(found - cmath.rect(0.99, theta)) < 1e-14
    if theta == angle.START:
        assert float(memory.unit_loss(found, TEACHER)) == pytest.approx(49.7142, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("polar", {500: 2.885, 1000: 0.1615, 2000: 1.6e-7}),
        ("exp", {1000: 25.13, 2000: 3.174, 3000: 4.6e-6}),
        ("optimal", {1000: 30.94, 2000: 16.63, 5000: 16.54}),
    ],
)
def test_losses_of_adam_at_given_steps(name, steps, paths):
    found = losses(paths["adam"], name)
    for step, figure in steps.items():
        assert float(found[step]) == pytest.approx(figure, rel=0.02 if figure < 1e-4 else 4e-4)
    assert not torch.allclose(found[list(steps)], losses(paths["sign"], name)[list(steps)], rtol=5e-3)


@pytest.mark.parametrize(
    ("name", "turn", "step", "learned"),
    [
        ("polar", (1.923, 0.061), 723, 1296),
        ("exp", (1.138, -1.751), 1508, 3153),
        ("optimal", (1.618, 54.6), None, None),
    ],
)
def test_turns_of_steps_against_the_sign(name, turn, step, learned, paths):
    path, loss = paths["sign"][:, NAMES.index(name)], losses(paths["sign"], name)
    least = int(path[:, 0].argmin())
    assert path[least].tolist() == pytest.approx(turn, abs=6e-4 if name != "optimal" else 0.05)
    if learned is None:
        assert float(loss[least:].min()) == pytest.approx(16.8, abs=0.05)
        assert float((path[least:] - path[-1]).abs().max()) < 0.3  # stuck
        for optimizer, modulus in (("adam", 0.927), ("sign", 0.924)):
            w, v = paths[optimizer][-1, NAMES.index(name)].tolist()
            phase = angle.PHASES[name](math.tanh(w), v)[0]
            assert phase - math.pi / 100 == pytest.approx(2 * math.pi, abs=0.01)  # a turn too far
            assert math.tanh(w) == pytest.approx(modulus, abs=1e-3)
    else:
        assert least == pytest.approx(step, abs=1)
        assert int((loss < 1).nonzero()[0]) == learned
    adam = paths["adam"][:, NAMES.index(name)]
    assert abs(int(adam[:, 0].argmin()) - least) > 200


def test_the_end_of_steps_against_the_sign(paths):
    tail = losses(paths["sign"], "polar")[2000:]
    assert [float(tail.min()), float(tail.max())] == pytest.approx([8.3e-4, 0.118], rel=5e-3)
    tail = losses(paths["sign"], "exp")[4000:]
    assert 5e-5 < float(tail.min()) < float(tail.max()) < 1e-4


def test_adam_that_forgets_its_state_steps_against_the_sign(paths):
    p = torch.stack([angle._start(name, angle.START) for name in NAMES])
    for step in range(30):
        assert float((p - paths["sign"][step]).abs().max()) < 1e-6
        slopes = [angle.gradient(name, *at) for name, at in zip(NAMES, p.tolist(), strict=True)]
        p.grad = torch.tensor(slopes, dtype=F64)
        torch.optim.Adam([p], lr=1e-3).step()
    assert float((p - paths["adam"][30]).abs().max()) > 1e-5


def test_the_committed_runs_are_those_of_5000_steps(paths):
    assert COMMITTED["config"]["steps"] == 5000
    assert COMMITTED["steps"][-1] == 5000
    for panel in COMMITTED["panels"]:
        name = panel["parametrization"]
        assert [run["optimizer"] for run in panel["runs"]] == ["adam", "sign"]
        for run in panel["runs"]:
            path = paths[run["optimizer"]][:, NAMES.index(name)]
            assert [run["w"][-1], run["v"][-1]] == pytest.approx(path[-1].tolist(), rel=1e-5)
            learned = losses(paths[run["optimizer"]], name) < 1
            assert (run["first_step_below_1"] is None) == (not bool(learned.any())) == (name == "optimal")
        field = panel["landscape"]
        at = torch.tensor([field["w"][3], field["v"][7]], dtype=F64)
        expected = float(memory.unit_loss(angle.eigenvalues(name, at), TEACHER).log10())
        assert field["log10"][3][7] == pytest.approx(expected, abs=6e-3)


def test_bad_arguments():
    with pytest.raises(ValueError, match="optimizer: expected one of adam, sign, got 'sgd'"):
        angle.run("sgd", 1)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        angle.learned_angle(steps=0)
    with pytest.raises(ValueError, match="points: expected at least 5, got 4"):
        angle.learned_angle(points=4)
