"""Forward and backward of every cell by the device code, against plain torch in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from emulated import CudaDevice
from networks import CELL_NAMES, SMOOTH_CELLS, TORCH_KINDS, gradients, normal, stack
from torch import Tensor

import lsc_ext as lsc
from lsc_ext import backends, ops, reference
from lsc_ext.cells import CELLS
from lsc_ext.nn import eager, flat_weights
from lsc_ext.testing import assert_close


class Precision(NamedTuple):
    """Of tensors, of float32 products by torch's setting, and the largest relative error."""

    dtype: torch.dtype
    products: str
    tolerance: float


PRECISIONS = {
    "float64": Precision(torch.float64, "highest", 1e-12),
    "fp32": Precision(torch.float32, "highest", 1e-5),
    "tf32": Precision(torch.float32, "high", 1e-3),
    "fp16": Precision(torch.float16, "highest", 1e-3),
    "bf16": Precision(torch.bfloat16, "highest", 1e-2),
    "float32 as bf16": Precision(torch.float32, "medium", 1e-2),
}


class Sizes(NamedTuple):
    time: int
    batch: int
    inputs: int
    hidden: int
    layers: int


# Each of 1, 3, 31, 33 and 65 as H, and in turn as another size.
SIZES = (Sizes(3, 2, 65, 1, 3), Sizes(2, 33, 1, 3, 2), Sizes(3, 1, 33, 31, 1), Sizes(3, 5, 31, 33, 2))
LARGE = Sizes(2, 3, 3, 65, 3)
SMALL = Sizes(3, 2, 2, 3, 2)


@contextlib.contextmanager
def products(setting: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Case(NamedTuple):
    """One call of the operator, on the CPU. Numbers are exact in bfloat16, so that no rounding moves a spike."""

    cell: str
    x: Tensor
    initial: Tensor
    weights: list[Tensor]

    def to(self, dtype: torch.dtype) -> Case:
        return Case(self.cell, self.x.to(dtype), self.initial.to(dtype), [w.to(dtype) for w in self.weights])

    def on(self, device: CudaDevice) -> Case:
        return Case(
            self.cell, device.tensor(self.x), device.tensor(self.initial), [device.tensor(w) for w in self.weights]
        )

    def leaves(self) -> list[Tensor]:
        return [t.requires_grad_() for t in (self.x, self.initial, *self.weights) if t.numel() > 0]

    def names(self) -> list[str]:
        every = ("x", "initial", *(f"{ops.PARAMETERS[i % 5]} of layer {i // 5}" for i in range(len(self.weights))))
        given = (self.x, self.initial, *self.weights)
        return [name for name, t in zip(every, given, strict=True) if t.numel() > 0]

    def states(self) -> Tensor:
        return ops.recurrent(self.x, self.initial, self.weights, self.cell)[0]

    def expected(self) -> Tensor:
        return reference.recurrent(self.x, self.initial, self.weights, self.cell)


def case(cell: str, sizes: Sizes = SMALL, **options: Any) -> Case:
    time, batch, inputs, hidden, layers = sizes
    model = stack(cell, inputs, hidden, layers, **options)
    initial = normal(layers, len(CELLS[cell].states), batch, hidden, seed=2)
    made = Case(cell, normal(time, batch, inputs), initial, [w.detach() for w in flat_weights(model, layers)])
    return made.to(torch.bfloat16).to(torch.float64)


def upstream_of(states: Tensor) -> Tensor:
    return normal(*states.shape, seed=9, dtype=torch.bfloat16)


def with_gradients(given: Case, device: CudaDevice) -> list[Tensor]:
    """States, then the gradient of each leaf, on the CPU."""
    there = given.on(device)
    leaves = there.leaves()
    states = there.states()
    found = torch.autograd.grad(states, leaves, device.tensor(upstream_of(states.cpu()).to(states.dtype)))
    return [t.detach().cpu() for t in (states, *found)]


def check(given: Case, device: CudaDevice, precision: Precision) -> None:
    truth = given.to(torch.float64)
    leaves = truth.leaves()
    states = truth.expected()
    expected = [states.detach(), *gradients(states * upstream_of(states).double(), leaves)]
    with products(precision.products):
        actual = with_gradients(given.to(precision.dtype), device)
    for name, a, e in zip(["states", *truth.names()], actual, expected, strict=True):
        assert a.dtype == precision.dtype
        assert_close(name if name == "states" else f"gradient of {name}", a, e, precision.tolerance)


@pytest.mark.parametrize("precision", ["float64", "fp32"])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: f"H{s.hidden}")
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_states_and_gradients_are_those_of_the_reference(
    cell: str, sizes: Sizes, precision: str, cuda_device: CudaDevice
) -> None:
    check(case(cell, sizes), cuda_device, PRECISIONS[precision])


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16", "float32 as bf16"])
@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[3]], ids=lambda s: f"H{s.hidden}")
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_low_precision_is_as_close_to_the_reference_as_its_rounding(
    cell: str, sizes: Sizes, precision: str, cuda_device: CudaDevice
) -> None:
    check(case(cell, sizes), cuda_device, PRECISIONS[precision])


@pytest.mark.parametrize("precision", ["float64", "fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "alif"])
def test_three_layers_of_65_units(cell: str, precision: str, cuda_device: CudaDevice) -> None:
    check(case(cell, LARGE), cuda_device, PRECISIONS[precision])


@pytest.mark.parametrize("cell", sorted(set(ops.CELL_SHAPES) - set(CELL_NAMES)))
def test_cells_that_differ_in_their_activation_alone(cell: str, cuda_device: CudaDevice) -> None:
    for precision in ("float64", "fp32", "bf16"):
        check(case(cell, SIZES[2]), cuda_device, PRECISIONS[precision])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_layers_of_torch_nn_give_the_same_output_and_gradients(kind: str, bias: bool, cuda_device: CudaDevice) -> None:
    ours, theirs, options = TORCH_KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        truth = theirs(5, 33, 2, bias=bias, dtype=torch.float64, **options)
    x = normal(3, 4, 5)
    weight = normal(3, 4, 33, seed=3)
    leaf = x.clone().requires_grad_()
    output = truth(leaf)[0]
    expected = [output.detach(), *gradients(output * weight, [leaf, *truth.parameters()])]
    model = ours.from_torch(truth).to("cpu" if cuda_device.name == "emulated" else "cuda:0")
    leaf = cuda_device.tensor(x.requires_grad_())
    output = model(leaf)[0]
    actual = [output.detach(), *gradients(output * cuda_device.tensor(weight), [leaf, *model.parameters()])]
    names = ["output", "gradient of x", *(f"gradient of {name}" for name, _ in truth.named_parameters())]
    for name, a, e in zip(names, actual, expected, strict=True):
        assert_close(name, a, e, 1e-12)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_missing_bias_is_zero(cell: str, cuda_device: CudaDevice) -> None:
    whole = case(cell)
    for missing in (2, 3):
        weights = [w.new_empty(0) if i % 5 == missing else w for i, w in enumerate(whole.weights)]
        check(whole._replace(weights=weights), cuda_device, PRECISIONS["float64"])


def run_compiled(backend: Any, given: Case, states: Tensor, gates: Tensor | None) -> None:
    """The compiled forward pass into memory of the caller's choice, slot 0 of ``states`` set first."""
    states[:, 0] = given.initial
    backend.call(
        backend.functions.forward,
        given.cell,
        ops.dtype_name(given.x),
        ops.sizes(given.x, given.initial),
        ops.buffer(given.x),
        ops.layer_buffers(given.weights),
        ops.buffer(states),
        None if gates is None else ops.buffer(gates),
    )


def unwritten(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.full(shape, torch.nan, dtype=like.dtype, device=like.device)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_state_and_gate_is_written_and_gates_may_be_absent(cell: str, cuda_device: CudaDevice) -> None:
    here = case(cell, SIZES[3])
    shapes = ops.result_shapes(here.x, here.initial, cell)
    expected = [unwritten(here.x, shape) for shape in shapes]
    run_compiled(backends.CpuBackend(), here, *expected)
    there = here.on(cuda_device)
    backend = backends.backend_of(there.x)
    assert backend.name == "cuda"
    states, gates = (unwritten(there.x, shape) for shape in shapes)
    run_compiled(backend, there, states, gates)
    assert_close("states", states, expected[0], 1e-12)
    assert_close("gates", gates, expected[1], 1e-12)
    alone = unwritten(there.x, shapes[0])
    run_compiled(backend, there, alone, None)
    assert torch.equal(alone, states), "states depend on whether the gates are kept"


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_gradient_is_written_and_each_may_be_absent(cell: str, cuda_device: CudaDevice) -> None:
    there = case(cell, SIZES[3]).on(cuda_device)
    states, gates = ops.recurrent(there.x, there.initial, there.weights, cell)
    upstream = cuda_device.tensor(upstream_of(states.cpu()).double())
    backend = backends.backend_of(there.x)

    def run(wanted: int | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        flowing, grad_x = upstream.clone(), torch.full_like(there.x, torch.nan)
        found = [
            torch.full_like(w, torch.nan) if wanted in (None, i % 5) else w.new_empty(0)
            for i, w in enumerate(there.weights)
        ]
        backend.call(
            backend.functions.backward,
            cell,
            ops.dtype_name(there.x),
            ops.sizes(there.x, there.initial),
            ops.buffer(there.x),
            ops.layer_buffers(there.weights),
            ops.buffer(states),
            ops.buffer(gates),
            ops.buffer(flowing),
            ops.buffer(grad_x),
            ops.layer_buffers(found),
        )
        return flowing, grad_x, found

    flowing, grad_x, found = run(None)
    assert all(bool(t.isfinite().all()) for t in (flowing, grad_x, *found)), "a gradient was not written"
    for wanted in range(5):
        one = run(wanted)
        assert torch.equal(one[0], flowing)
        assert torch.equal(one[1], grad_x)
        assert all(torch.equal(a, e) for i, (a, e) in enumerate(zip(one[2], found, strict=True)) if i % 5 == wanted)


def test_more_steps_than_one_slice_of_rows_are_summed(cuda_device: CudaDevice) -> None:
    check(case("lif", Sizes(10, 53, 1, 3, 2)), cuda_device, PRECISIONS["float64"])


STRIDED = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced": lambda t: torch.stack((t, t + 1), dim=-1)[..., 0],
    "offset": lambda t: torch.cat((t[:1], t))[1:],
    "expanded": lambda t: t[:1].expand_as(t),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("how", STRIDED)
@pytest.mark.parametrize("cell", ["gru", "alif"])
def test_strides_of_the_arguments_do_not_matter(cell: str, how: str, precision: str, cuda_device: CudaDevice) -> None:
    plain = case(cell).to(PRECISIONS[precision].dtype).on(cuda_device)
    if how == "expanded":
        x, initial = (STRIDED[how](t).contiguous() for t in (plain.x, plain.initial))
        plain = plain._replace(x=x, initial=initial)
    strided = plain._replace(x=STRIDED[how](plain.x), initial=STRIDED[how](plain.initial))
    if how != "expanded":
        strided = strided._replace(weights=[STRIDED[how](w) if w.numel() > 0 else w for w in plain.weights])
    states, gates = ops.recurrent(plain.x, plain.initial, plain.weights, cell)
    assert torch.equal(strided.states(), states)
    upstream = cuda_device.tensor(upstream_of(states.cpu()).to(states.dtype))
    backward = torch.ops.lsc_ext.recurrent_backward
    expected = backward(upstream, plain.x, states, gates, plain.weights, cell)
    back = (STRIDED["sliced"](t) for t in (states, gates))
    actual = backward(STRIDED["sliced"](upstream), strided.x, *back, strided.weights, cell)
    for a, e in zip([*actual[:2], *actual[2]], [*expected[:2], *expected[2]], strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize(("time", "batch"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_no_steps_or_no_sequences_leave_zero_gradients(
    cell: str, precision: str, time: int, batch: int, cuda_device: CudaDevice
) -> None:
    given = case(cell, Sizes(time, batch, 2, 3, 2)).to(PRECISIONS[precision].dtype).on(cuda_device)
    leaves = [t.requires_grad_() for t in (given.x, given.initial, *given.weights)]
    states = given.states()
    assert states.shape == (2, time + 1, len(CELLS[cell].states), batch, 3)
    assert torch.equal(states[:, 0], given.initial)
    found = gradients(states, leaves)
    assert torch.equal(found[1], torch.ones_like(given.initial))
    assert all(not g.any() for g in found[2:])


@pytest.mark.parametrize("cell", SMOOTH_CELLS)
def test_first_derivatives_pass_gradcheck(cell: str, cuda_device: CudaDevice) -> None:
    given = case(cell, Sizes(2, 2, 2, 3, 2)).on(cuda_device)

    def function(x: Tensor, initial: Tensor, *present: Tensor) -> Tensor:
        rest = iter(present)
        weights = [next(rest) if w.numel() > 0 else w for w in given.weights]
        return ops.recurrent(x, initial, weights, cell)[0]

    assert torch.autograd.gradcheck(function, given.leaves(), fast_mode=True)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_sequence_is_the_same_bit_for_bit_whatever_its_companions(
    cell: str, precision: str, cuda_device: CudaDevice
) -> None:
    among = case(cell, Sizes(3, 19, 5, 33, 2)).to(PRECISIONS[precision].dtype)
    alone = among._replace(x=among.x[:, 17:18], initial=among.initial[:, :, 17:18])
    with products(PRECISIONS[precision].products):
        results = [given.on(cuda_device).states() for given in (among, alone)]
    assert torch.equal(results[0][:, :, :, 17:18], results[1])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_the_gradient_of_a_sequence_is_the_same_bit_for_bit_whatever_its_companions(
    precision: str, cuda_device: CudaDevice
) -> None:
    among = case("lstm", Sizes(3, 19, 5, 33, 2)).to(PRECISIONS[precision].dtype).on(cuda_device)
    alone = among._replace(x=among.x[:, 17:18], initial=among.initial[:, :, 17:18])
    found = []
    with products(PRECISIONS[precision].products):
        for given, rows in ((among, slice(17, 18)), (alone, slice(None))):
            states, gates = ops.recurrent(given.x, given.initial, given.weights, "lstm")
            grads = torch.ops.lsc_ext.recurrent_backward(
                torch.ones_like(states), given.x, states, gates, given.weights, "lstm"
            )
            found.append((grads[0][:, rows], grads[1][:, :, rows]))
    for a, e in zip(*found, strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_repeated_runs_give_the_same_bits_in_whatever_order_threads_run(cell: str, cuda_device: CudaDevice) -> None:
    given = case(cell, SIZES[3]).to(torch.float32)
    results = []
    for seed in (0, 1, 2):
        cuda_device.reseed(seed)
        results.append(with_gradients(given, cuda_device))
    for other in results[1:]:
        assert all(torch.equal(a, e) for a, e in zip(other, results[0], strict=True))


@pytest.mark.parametrize("recorded", [True, False])
def test_a_layer_takes_no_short_way_past_the_device(
    recorded: bool, cuda_device: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lsc.nn.GRU(3, 5).to("cpu" if cuda_device.name == "emulated" else "cuda:0")
    x = cuda_device.tensor(normal(2, 2, 3, dtype=torch.float32))
    monkeypatch.setattr(eager, "_C", None)
    with torch.set_grad_enabled(recorded):
        output = model(x)[0]
    if recorded:
        output.sum().backward()
    assert bool(output.isfinite().all())


def test_tensors_of_another_device_or_dtype_are_refused(cuda_device: CudaDevice) -> None:
    given = case("gru").on(cuda_device)
    states, gates = ops.recurrent(given.x, given.initial, given.weights, "gru")
    with pytest.raises(RuntimeError, match=f"device: expected every tensor on {given.x.device} as x is, got meta"):
        ops.run_recurrent(given.x, given.initial.to("meta"), given.weights, "gru", states, gates)
    with pytest.raises(TypeError, match=r"dtype: expected torch.float64 as x has, got torch.float16"):
        ops.recurrent(given.x, given.initial, [w.half() for w in given.weights], "gru")
    with pytest.raises(TypeError, match=r"dtype: expected .*got torch.int64"):
        ops.recurrent(given.x.long(), given.initial, given.weights, "gru")


def test_memory_of_another_size_is_refused_before_anything_is_launched(cuda_device: CudaDevice) -> None:
    given = case("lstm").on(cuda_device)
    shapes = ops.result_shapes(given.x, given.initial, "lstm")
    states, gates = (unwritten(given.x, shape) for shape in shapes)
    backend = backends.backend_of(given.x)
    with pytest.raises(ValueError, match=rf"gates: expected {gates.numel()} elements, got {gates.numel() // 2}"):
        run_compiled(backend, given, states, gates[:1])
    assert bool(states[:, 1:].isnan().all())
