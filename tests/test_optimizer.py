"""AdaBelief and Lookahead against their published recurrences, written out number by number."""

import math

import pytest
import torch

from lsc_ext.pretrain.optimizer import AdaBelief, Lookahead


def gradient_at(w: float, t: int) -> float:
    """Of a function whose curvature and slope change with the step, so that no moment stays what it was."""
    return math.cos(3 * w + t) + 0.3 * w


def adabelief(w: float, steps: int, lr: float, b1: float, b2: float, eps: float, decay: float) -> list[float]:
    """arXiv 2010.07468, algorithm 2, with the rectification of arXiv 1908.03265, algorithm 2."""
    m = s = 0.0
    limit = 2 / (1 - b2) - 1
    path = []
    for t in range(1, steps + 1):
        g = gradient_at(w, t)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        corrected = m / (1 - b1**t)
        length = limit - 2 * t * b2**t / (1 - b2**t)
        if length >= 5:
            r = math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
            corrected = r * corrected / (math.sqrt(s / (1 - b2**t)) + eps)
        w = w - lr * (corrected + decay * w)
        path.append(w)
    return path


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("b2", "eps"), [(0.999, 1e-14), (0.99, 1e-4), (0.6, 1e-3)])
def test_adabelief_follows_its_recurrences(decay, b2, eps):
    w = torch.tensor([0.7, -0.2, 1.5], dtype=torch.float64, requires_grad=True)
    expected = [adabelief(value, 40, 0.05, 0.9, b2, eps, decay) for value in w.tolist()]
    optimizer = AdaBelief([w], lr=0.05, betas=(0.9, b2), eps=eps, weight_decay=decay)
    for t in range(1, 41):
        w.grad = torch.tensor([gradient_at(value, t) for value in w.tolist()], dtype=torch.float64)
        optimizer.step()
        assert w.tolist() == pytest.approx([path[t - 1] for path in expected], rel=1e-10)


def test_the_first_steps_of_adabelief_are_not_adaptive_and_later_ones_are():
    w = torch.tensor([100.0, 0.01], dtype=torch.float64, requires_grad=True)
    optimizer = AdaBelief([w], lr=1e-3)
    changes = []
    for _ in range(200):
        before = w.detach().clone()
        w.grad = torch.tensor([100.0, 0.01], dtype=torch.float64) * torch.randn(1, dtype=torch.float64).exp()
        optimizer.step()
        changes.append((w.detach() - before).abs())
    assert float(changes[0][0] / changes[0][1]) == pytest.approx(1e4)
    assert float(changes[-1][0] / changes[-1][1]) == pytest.approx(1, abs=0.01)


def test_adabelief_calls_a_closure_and_skips_what_has_no_gradient():
    w, still = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = AdaBelief([w, still])

    def closure():
        loss = w.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0
    assert torch.equal(still, torch.ones(2))
    assert not torch.equal(w, torch.ones(2))


def lookahead(w: float, steps: int, lr: float, every: int, share: float) -> list[float]:
    """arXiv 1907.08610, algorithm 1, around gradient descent."""
    slow, path = w, []
    for t in range(1, steps + 1):
        w = w - lr * gradient_at(w, t)
        if t % every == 0:
            slow = slow + share * (w - slow)
            w = slow
        path.append(w)
    return path


@pytest.mark.parametrize(("every", "share"), [(6, 0.5), (1, 0.3), (4, 0.8)])
def test_lookahead_follows_its_algorithm(every, share):
    w = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)
    expected = [lookahead(value, 25, 0.1, every, share) for value in w.tolist()]
    optimizer = Lookahead(torch.optim.SGD([w], lr=0.1), every, share)
    for t in range(1, 26):
        w.grad = torch.tensor([gradient_at(value, t) for value in w.tolist()], dtype=torch.float64)
        optimizer.step()
        assert w.tolist() == pytest.approx([path[t - 1] for path in expected], rel=1e-12)


def test_lookahead_takes_back_its_own_way_only():
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = Lookahead(torch.optim.SGD([w], lr=1.0), 2, 0.5)
    for gradient in (-1.0, -3.0):
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        with torch.no_grad():
            w += 10  # another move
    assert w.tolist() == [2.0 + 20.0]
