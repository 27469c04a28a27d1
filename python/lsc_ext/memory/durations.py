"""How long a layer remembers, in steps, and what the closed forms say of a unit that remembers as long.

Letters: lambda = nu exp(i theta) an eigenvalue, tau = 1 / (1 - nu) a memory in steps, z a gate, R an autocorrelation,
T steps, B sequences, N units, gamma the factor on a normalised input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsc_ext.memory.autocorrelation import Exponentials, Lags, read_rho
from lsc_ext.memory.eigenvalue import read_eigenvalue
from lsc_ext.memory.estimation import autocorrelation
from lsc_ext.memory.gates import GatedMoments, gated_second_moments
from lsc_ext.memory.horizon import sensitivity_after, state_after
from lsc_ext.memory.normalization import input_normalization
from lsc_ext.rerun import Diagonal, LayerRun

#: Powers of eigenvalues that are held at once.
_NUMBERS = 2**20


@dataclass(frozen=True)
class Durations:
    """Memories of a layer.

    Attributes:
        source: "eigenvalues", "gates" or "radii".
        eigenvalues: lambda, real or complex [N]; of a gate its mean over the data; of radii those of all points.
        steps: tau [N], float64; infinite where nu is 1 or more.
    """

    source: str
    eigenvalues: Tensor
    steps: Tensor

    @property
    def median(self) -> float:
        """Of tau."""
        return float(self.steps.median())

    @property
    def largest(self) -> float:
        """The largest tau."""
        return float(self.steps.max())


def durations_of(run: LayerRun, gate: Tensor | None, radii: Tensor | None) -> Durations | None:
    """From eigenvalues where these are known, from gates [T, B, H] where there are some, else from radii.

    None where there are none of these, or no finite one.
    """
    if run.diagonal is not None or run.moduli is not None:
        source = "eigenvalues"
        found = run.diagonal.eigenvalues() if run.diagonal is not None else run.moduli
    elif gate is not None:
        source, found = "gates", gate.double().mean((0, 1))
    elif radii is not None:
        source, found = "radii", radii[radii.isfinite()]
    else:
        return None
    assert found is not None
    lam = found.detach().to(torch.complex128 if found.is_complex() else torch.float64).cpu()
    if lam.numel() == 0 or not bool(torch.isfinite(lam.abs()).all()):
        return None
    rest = 1 - lam.abs()
    return Durations(source, lam, torch.where(rest > 0, 1 / rest, torch.inf))


@dataclass(frozen=True)
class Reference:
    """Second moments of a unit of the same memory with a normalised input and a well chosen parameter, fed the same.

    Means over the layer's units, T steps after a state of zero.

    Attributes:
        state: E |gamma h|^2 of h' = lambda h + gamma u, which is also E |d gamma h / d w|^2 for nu = tanh(w).
        input: to an input weight, the same but for layers that are not linear, whose states count as they are.
        bias: to a number that is added at every step.
    """

    state: float
    input: float
    bias: float

    def of(self, role: str, settled: bool) -> float:
        """For a parameter of that role, the mildest where it may have any and nothing is ``settled``."""
        if role in ("recurrent", "timescale", "threshold") or (settled and role == "other"):
            return self.state
        if role in ("input", "bias"):
            return self.input if role == "input" else self.bias
        return max(self.state, self.input, self.bias)


def reference_of(run: LayerRun, durations: Durations, power: float) -> Reference | None:
    """What normalisation and reparametrisation would make of a layer, ``power`` being its E |h|^2 for each unit.

    None where what it is fed is not finite.
    """
    lags = lags_of(run.fed if run.diagonal is None else run.diagonal.features)
    steps = len(run.fed)
    if lags is None:
        return None
    # No memory is seen to be longer than the data.
    modulus = 1 - 1 / durations.steps.clamp(max=max(steps, 2))
    lam = modulus * torch.sgn(durations.eigenvalues)
    gamma = input_normalization(modulus, "l1" if durations.source == "gates" else "l2").square()
    fed = _mean_after(lam, gamma, lags, steps)
    bias = _mean_after(modulus, gamma, read_rho(1.0), steps)
    if run.diagonal is not None or run.kind in ("linear", "ind_rnn"):
        return Reference(fed, fed, bias)
    bounded = run.kind in ("gru", "lstm")  # a mean of candidates, which are at most 1
    return Reference(min(power, 1.0) if bounded else power, fed, bias)


def _mean_after(lam: Tensor, gamma: Tensor, R: Exponentials | Lags, steps: int) -> float:
    """Mean of gamma E |h|^2 over units, as many at once as take few numbers."""
    total, at_once = 0.0, max(1, _NUMBERS // steps)
    for some, factor in zip(lam.split(at_once), gamma.split(at_once), strict=True):
        total += float((factor * state_after(read_eigenvalue("lam", some), R, steps)).sum())
    return total / len(lam)


def lags_of(series: Tensor) -> Lags | None:
    """The autocorrelation of data [T, ..] at all lags, pooled over all but time; None where it is not finite."""
    data = series.detach().double()
    if data.numel() == 0 or not bool(data.isfinite().all()):
        return None
    return Lags(autocorrelation(data.flatten(1), len(data)).cpu())


@dataclass(frozen=True)
class ClosedForm:
    """Second moments that the theory predicts.

    Attributes:
        state: E |h|^2, the mean over units.
        sensitivity: E |d h / d lambda|^2 of a linear unit, E |d h / d b|^2 of a gate's bias; the mean over units.
    """

    state: float
    sensitivity: float


def diagonal_closed_form(diagonal: Diagonal, steps: Tensor) -> ClosedForm | None:
    """Of a linear diagonal recurrence, from the autocorrelation of what drives each unit; the mean over ``steps``.

    A drive is taken for one whose autocorrelation is real, as that of features that do not predict each other one way
    is. None where an initial state is not zero or a drive is not finite.
    """
    if bool((diagonal.initial != 0).any()):
        return None
    with torch.no_grad():
        lam = diagonal.eigenvalues()
        drive = diagonal.features.to(lam.dtype) @ diagonal.input_matrix().T
    parts = (drive.real, drive.imag) if drive.is_complex() else (drive,)
    if not bool(drive.isfinite().all()):
        return None
    lags = sum(autocorrelation(part, len(drive), per_feature=True) for part in parts)
    assert isinstance(lags, Tensor)
    found = []
    for unit, values in zip(lam, lags.cpu(), strict=True):
        point, own = read_eigenvalue("lam", unit.cpu(), inside=False), Lags(values)
        for horizon in steps.tolist():
            found.append(torch.stack((state_after(point, own, horizon), sensitivity_after(point, own, horizon))))
    state, sensitivity = torch.stack(found).mean(0).tolist()
    return ClosedForm(state, sensitivity)


def gated_closed_form(gate: Tensor, states: Tensor) -> ClosedForm | None:
    """Of units h' = z h + (1 - z) n as if z were constant, from z [T, B, H] and h [T, B, H]; stationary.

    The candidates n are read off the states from the second on; their autocorrelation is pooled over units.
    """
    z = gate.double()
    candidates = lags_of((states[1:].double() - z[1:] * states[:-1].double()) / (1 - z[1:]))
    mean = z.mean((0, 1)).cpu()
    if candidates is None or not bool((mean < 1).all()):
        return None
    found: GatedMoments = gated_second_moments(mean, _short(candidates, mean))
    return ClosedForm(float(found.state.mean()), float(found.sensitivity.mean()))


def _short(lags: Lags, gates: Tensor) -> Exponentials | Lags:
    """Without lags that no gate reaches: the sums over lags go one by one."""
    reach = int((-36 / gates.max().clamp(1e-6, 1 - 1e-6).log()).ceil())
    return Lags(lags.values[: max(1, reach)])
