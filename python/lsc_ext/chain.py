"""Products of several Jacobians of an operator, and how vectors grow along them.

A single step's radius says nothing sure about a product of steps: radii do not multiply. Letters: N chains of K points,
n x n Jacobians, k vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsc_ext import ops
from lsc_ext.operator import JacobianOperator, MatrixOperator, StepOperator


class ChainOperator(JacobianOperator):
    """P_i = J[chains[i, K-1]] .. J[chains[i, 0]], or the symmetric P_i' P_i, whose radius is P_i's largest singular
    value squared.

    Args:
        base: n x n Jacobians at the points that chains name.
        chains: [N, K] int64, on the CPU.
        scales: [N] float64, what every factor of a chain is multiplied with, so that a long product stays in range;
            None for 1.
        gram: whether it is P' P.

    Not differentiable.

    Raises:
        ValueError: the base is not square, a point that it does not have, or chains without a factor.
    """

    def __init__(
        self, base: JacobianOperator, chains: Tensor, scales: Tensor | None = None, *, gram: bool = False
    ) -> None:
        if base.rows != base.columns:
            raise ValueError(f"base: expected square Jacobians, got {base.rows} x {base.columns}")
        if chains.dim() != 2 or chains.shape[1] < 1 or chains.dtype != torch.int64:
            raise ValueError(
                f"chains: expected int64 of shape (N, K), K at least 1, got {chains.dtype} {tuple(chains.shape)}"
            )
        outside = chains[(chains < 0) | (chains >= base.num_points)]
        if outside.numel():
            raise ValueError(f"chains: expected points 0 .. {base.num_points - 1}, got {int(outside[0])}")
        self.base, self.gram = base, gram
        self.chains = chains.contiguous()
        self.scales = torch.ones(len(chains), dtype=torch.float64) if scales is None else scales.double().cpu()
        self.num_points, self.rows, self.columns = len(chains), base.rows, base.columns
        self.dtype, self.device, self.backend = base.dtype, base.device, base.backend
        if is_compiled(base):
            self.compiled = base.compiled.chain(
                ops.buffer(self.chains), *self.chains.shape, ops.buffer(self.scales), gram
            )
        else:
            self._connect()

    def _product(self, v: Tensor, transpose: bool, index: Tensor | None) -> Tensor:
        chosen = torch.arange(self.num_points) if index is None else index.cpu()
        if not self.gram:
            return self._along(v, transpose, chosen)
        return self._along(self._along(v, False, chosen), True, chosen)

    def _along(self, v: Tensor, transpose: bool, chosen: Tensor) -> Tensor:
        steps = self.chains[chosen].unbind(1)
        scales = self.scales[chosen].to(v.device, v.dtype).unsqueeze(1)
        for points in reversed(steps) if transpose else steps:
            product = self.base.rmatvec if transpose else self.base.matvec
            v = product(v, points.to(v.device)) * scales
        return v

    def release(self) -> None:
        """As the base."""
        self.base.release()


def is_compiled(operator: JacobianOperator) -> bool:
    """Whether the processor's compiled code multiplies with the operator without asking Python."""
    return operator.backend.name == "cpu" and isinstance(operator, MatrixOperator | StepOperator)


class Growth:
    """k orthonormal vectors for each of N chains that go along Jacobians, and the logarithms of their lengths.

    After QR decomposition at every ``every`` products, the mean of the logarithms per product tends to the first k
    Lyapunov exponents (Benettin et al. 1980).

    Args:
        chains: N.
        vectors: k.
        columns: n.
        seed: of the vectors to begin with.
        every: products between two decompositions; more lets vectors fall together, in float32 beyond about 10 steps
            of a radius that is far from 1.
        like: a tensor of the dtype and on the device of the Jacobians.

    Raises:
        ValueError: more vectors than columns, or an option out of range.
    """

    def __init__(self, chains: int, vectors: int, columns: int, seed: int, every: int, like: Tensor) -> None:
        if not 1 <= vectors <= max(columns, 1):
            raise ValueError(f"num_exponents: expected 1 .. {columns}, got {vectors}")
        if every < 1:
            raise ValueError(f"qr_every: expected at least 1, got {every}")
        self.every, self.seed, self.products = every, seed, 0
        generator = torch.Generator().manual_seed(seed)
        q = torch.randn(chains, vectors, columns, dtype=torch.float64, generator=generator)
        q = torch.linalg.qr(q.mT).Q.mT if q.numel() else q
        self.vectors = q.to(like.device, like.dtype).contiguous()  # [N, k, n]
        self.logs = torch.zeros(chains, vectors, dtype=torch.float64)

    def follow(self, operator: JacobianOperator, points: Tensor) -> None:
        """Multiplies the vectors with the Jacobians at ``points`` [steps, N] int64, on the CPU, one after the other."""
        if points.numel() == 0:
            return
        if is_compiled(operator):
            self._follow_compiled(operator, points)
        else:
            self._follow_in_torch(operator, points)
        self.products += len(points)

    @property
    def exponents(self) -> Tensor:
        """Logarithms per product so far, [N, k]."""
        return self.logs / max(self.products, 1)

    def forget(self) -> None:
        """Counts from here on."""
        self.products = 0
        self.logs.zero_()

    def _follow_compiled(self, operator: JacobianOperator, points: Tensor) -> None:
        points = points.contiguous()
        chains, count, _ = self.vectors.shape
        operator.backend.call(
            operator.compiled.growth,
            ops.buffer(points),
            len(points),
            chains,
            count,
            self.every,
            self.seed,
            ops.buffer(self.vectors),
            ops.buffer(self.logs),
        )

    def _follow_in_torch(self, operator: JacobianOperator, points: Tensor) -> None:
        chains, count, columns = self.vectors.shape
        for step, at in enumerate(points):
            index = at.repeat_interleave(count)
            product = operator.matvec(self.vectors.view(chains * count, columns), index.to(self.vectors.device))
            self.vectors = product.view(chains, count, columns)
            if (step + 1) % self.every == 0 or step + 1 == len(points):
                self._decompose()

    def _decompose(self) -> None:
        finite = self.vectors.isfinite().flatten(1).all(dim=1)
        whole = torch.where(finite[:, None, None], self.vectors, 0.0)
        q, r = torch.linalg.qr(whole.mT)
        self.vectors = q.mT.contiguous()
        lengths = r.diagonal(dim1=1, dim2=2).abs().double().log()
        self.logs += torch.where(finite[:, None], lengths, float("nan")).cpu()
