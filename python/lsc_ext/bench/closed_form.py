"""One layer's step at N points in plain torch, and its Jacobian's closed form: what the peers of the radii work on.

Letters: N points, H units, S states per unit, G gates, n columns of the Jacobian: S * H along time, H along depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from lsc_ext.nn import StackTrajectory

#: v [N, n] and where J v goes, which is other memory.
Product = Callable[[Tensor, Tensor], None]


def step(kind: str, from_input: Tensor, from_state: Tensor, state: Tensor) -> Tensor:
    """The next state [.., S * H] of torch.nn's RNN (tanh), GRU or LSTM from both parts [.., G * H] of its gates."""
    if kind == "RNN":
        return torch.tanh(from_input + from_state)
    if kind == "GRU":
        (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
        z = torch.sigmoid(xz + hz)
        return (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn) + z * state
    i, f, g, o = (from_input + from_state).chunk(4, -1)
    c = torch.sigmoid(f) * state.chunk(2, -1)[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat((torch.sigmoid(o) * torch.tanh(c), c), -1)


class Points:
    """Steps of one layer along "time" or "depth".

    Attributes:
        kind: "RNN", "GRU" or "LSTM".
        direction: "time" or "depth".
        point: [N, n], where to differentiate.
        weight: [G * H, H], what the derivative goes through.
        data: what else the step needs of each point: the other part of the gates [N, G * H] and the state [N, S * H].
    """

    def __init__(
        self, kind: str, direction: str, weight: Tensor, bias: Tensor, point: Tensor, fixed: Tensor, state: Tensor
    ) -> None:
        self.kind, self.direction, self.weight, self.bias = kind, direction, weight, bias
        self.point, self.data = point, (fixed, state)
        self.hidden = weight.shape[1]

    @classmethod
    def of_layer(
        cls, model: Any, trajectory: StackTrajectory, x: Tensor, layer: int, direction: str, at: Tensor
    ) -> Points:
        """At points ``at`` [N, 2], pairs (t, b), of a torch.nn module whose layers are H wide."""
        t, b = at.unbind(1)
        states = trajectory.states.detach()
        fed = (x if layer == 0 else states[layer - 1, 1:, 0])[t, b]
        state = states[layer, t, :, b].flatten(1)
        weights = [getattr(model, f"{name}_l{layer}").detach() for name in ("weight_ih", "weight_hh")]
        biases = [getattr(model, f"{name}_l{layer}").detach() for name in ("bias_ih", "bias_hh")]
        kind = type(model).__name__
        if direction == "time":
            return cls(kind, direction, weights[1], biases[1], state, linear(fed, weights[0], biases[0]), state)
        hidden = linear(state[:, : weights[1].shape[1]], weights[1], biases[1])
        return cls(kind, direction, weights[0], biases[0], fed, hidden, state)

    def __len__(self) -> int:
        return self.point.shape[0]

    def first(self, count: int) -> Points:
        """The first ``count`` of them."""
        fixed, state = (z[:count] for z in self.data)
        return Points(self.kind, self.direction, self.weight, self.bias, self.point[:count], fixed, state)

    def to(self, dtype: torch.dtype) -> Points:
        """The same points in another precision."""
        fixed, state = (z.to(dtype) for z in self.data)
        return Points(
            self.kind, self.direction, self.weight.to(dtype), self.bias.to(dtype), self.point.to(dtype), fixed, state
        )

    def moved(self, device: str) -> Points:
        """The same points on a device."""
        fixed, state, point, weight, bias = (z.to(device) for z in (*self.data, self.point, self.weight, self.bias))
        return Points(self.kind, self.direction, weight, bias, point, fixed, state)

    def function(self, point: Tensor, fixed: Tensor, state: Tensor, weight: Tensor | None = None) -> Tensor:
        """What is differentiated, of one point or of rows of them."""
        weight = self.weight if weight is None else weight
        if self.direction == "time":
            return step(self.kind, fixed, linear(point[..., : self.hidden], weight, self.bias), point)
        return step(self.kind, linear(point, weight, self.bias), fixed, state)[..., : self.hidden]

    def dense(self, weight: Tensor | None = None) -> Tensor:
        """All Jacobians [N, n, n] by reverse mode."""
        jacobian = torch.func.vmap(torch.func.jacrev(self.function), in_dims=(0, 0, 0, None))
        return jacobian(self.point, *self.data, self.weight if weight is None else weight)  # type: ignore[no-any-return]

    def coefficients(self) -> dict[str, Tensor]:
        """[N, H] each: of every gate's product by its place, "skip" of v itself, and of an LSTM's two states."""
        fixed, state = self.data
        own = linear(self.point[:, : self.hidden], self.weight, self.bias)
        from_input, from_state = (fixed, own) if self.direction == "time" else (own, fixed)
        if self.kind == "RNN":
            return {"0": 1 - torch.tanh(from_input + from_state).square()}
        if self.kind == "GRU":
            (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, 1), from_state.chunk(3, 1)
            r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
            n = torch.tanh(xn + r * hn)
            dn = (1 - z) * (1 - n * n)
            found = {"0": dn * hn * r * (1 - r), "1": (state - n) * z * (1 - z)}
            return found | ({"2": dn * r, "skip": z} if self.direction == "time" else {"2": dn})
        i, f, g, o = (from_input + from_state).chunk(4, 1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = state[:, self.hidden :]
        top = torch.tanh(f * c + i * g)
        found = {"0": g * i * (1 - i), "1": c * f * (1 - f), "2": i * (1 - g * g), "3": top * o * (1 - o)}
        found["output"] = o * (1 - top * top)
        return found | ({"forget": f} if self.direction == "time" else {})

    def product(self, multiply: Callable[[Tensor], Tensor]) -> Product:
        """J v as one product with all gates' weights, ``multiply``: [N, H] -> [N, G * H], and what comes after it."""
        c, hidden = {name: z.contiguous() for name, z in self.coefficients().items()}, self.hidden

        def summed(gates: Sequence[Tensor], out: Tensor, start: tuple[Tensor, Tensor] | None) -> None:
            first = 0 if start else 1
            torch.mul(*(start or (gates[0], c["0"])), out=out)
            for k in range(first, len(gates)):
                out.addcmul_(gates[k], c[str(k)])

        def one_state(v: Tensor, out: Tensor) -> None:
            summed(multiply(v).split(hidden, 1), out, (c["skip"], v) if "skip" in c else None)

        def lstm(v: Tensor, out: Tensor) -> None:
            gates = multiply(v[:, :hidden]).split(hidden, 1)
            cell = out[:, hidden:] if "forget" in c else torch.empty_like(out)
            summed(gates[:3], cell, (c["forget"], v[:, hidden:]) if "forget" in c else None)
            torch.mul(c["output"], cell, out=out[:, :hidden]).addcmul_(gates[3], c["3"])

        return lstm if self.kind == "LSTM" else one_state
