"""Linear recurrences by the device code, against a loop of numpy in double precision and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from networks import SIZES

from lsc_ext import backends
from lsc_ext.scan import _block_scan_compiled, _scan_compiled, block_scan, scan
from lsc_ext.testing import TOLERANCES, assert_close

REAL, COMPLEX = torch.float64, torch.complex128
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
MANY = 1 << 15  # from so many numbers on, a thread takes a number through all steps
CHUNKED = (125, 128, 1000, 4099)  # steps that few numbers take in chunks: 4 and more, the last of them shorter or not

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_direction = pytest.mark.parametrize("reverse", [False, True])


def normal(*shape, seed=1, dtype=REAL):
    wide = COMPLEX if dtype.is_complex else REAL
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def contractive(tensor):
    return tensor / (1 + tensor.abs())


def tolerance(dtype):
    return TOLERANCES[dtype.to_real()].forward


def loop(transition, inputs, initial=None, *, reverse=False, adjoint=False):
    """h_t = a_t h_{t-1} + b_t, or h_t = conj(a_{t-1}) h_{t-1} + b_t, step by step in double precision."""
    a, b = (t.detach().resolve_conj().cpu().numpy().astype(np.complex128) for t in (transition, inputs))
    state = None if initial is None else initial.detach().cpu().numpy().astype(np.complex128)
    states, before = np.empty_like(b), None
    with np.errstate(all="ignore"):
        for t in reversed(range(len(b))) if reverse else range(len(b)):
            if state is None:
                state = b[t]
            elif a.ndim == 1:
                state = (a.conj() if adjoint else a) * state + b[t]
            else:
                state = (a[before].conj() if adjoint else a[t]) * state + b[t]
            states[t], before = state, t
    return torch.from_numpy(states if inputs.is_complex() else states.real)


def block_loop(blocks, inputs, initial=None, *, reverse=False):
    a, b = (t.detach().resolve_conj().cpu().numpy().astype(np.complex128) for t in (blocks, inputs))
    state = None if initial is None else initial.detach().cpu().numpy().astype(np.complex128)
    states = np.empty_like(b)
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        if state is None:
            state = b[t]
        else:
            parts = state.reshape(len(state), *a.shape[:2])
            state = np.einsum("kij,bkj->bki", a, parts).reshape(state.shape) + b[t]
        states[t] = state
    return torch.from_numpy(states if inputs.is_complex() else states.real)


def operator(device, transition, inputs, initial=None, *, reverse=False, adjoint=False):
    placed = [None if t is None else device.tensor(t) for t in (transition, inputs, initial)]
    return torch.ops.lsc_ext.scan(*placed, reverse, adjoint).cpu()


def check_scan(device, transition, inputs, initial, dtype):
    for reverse, adjoint in itertools.product((False, True), repeat=2):
        for start in (None,) if adjoint else (None, initial):
            options = {"reverse": reverse, "adjoint": adjoint}
            states = operator(device, transition, inputs, start, **options)
            assert states.dtype == dtype
            name = f"states, {options}, initial {start is not None}"
            assert_close(name, states, loop(transition, inputs, start, **options), tolerance(dtype))


@every_dtype
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("lanes", SIZES)
def test_few_steps_equal_the_loop(cuda_device, lanes, constant, dtype):
    inputs, initial = normal(7, 3, lanes, dtype=dtype), normal(3, lanes, seed=2, dtype=dtype)
    transition = normal(*((lanes,) if constant else (7, 3, lanes)), seed=3, dtype=dtype)
    check_scan(cuda_device, transition, inputs, initial, dtype)


@every_dtype
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("steps", CHUNKED)
def test_many_steps_equal_the_loop(cuda_device, steps, constant, dtype):
    inputs, initial = normal(steps, 2, 3, dtype=dtype), normal(2, 3, seed=2, dtype=dtype)
    transition = contractive(normal(*((3,) if constant else (steps, 2, 3)), seed=3, dtype=dtype))
    check_scan(cuda_device, transition, inputs, initial, dtype)


@pytest.mark.parametrize(("dtype", "reverse"), [(REAL, True), (COMPLEX, False)])
def test_many_numbers_through_many_steps_equal_the_loop(cuda_device, dtype, reverse):
    steps, lanes = 100, MANY + 5
    inputs, transition = normal(steps, 1, lanes, dtype=dtype), contractive(normal(steps, 1, lanes, seed=3, dtype=dtype))
    states = operator(cuda_device, transition, inputs, reverse=reverse)
    assert_close("states", states, loop(transition, inputs, reverse=reverse), tolerance(dtype))


@pytest.mark.parametrize("steps", [1, 2, 33, 3000])
@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_a_constant_transition_sums_a_geometric_series(cuda_device, dtype, steps):
    a, b, h = contractive(normal(5, dtype=dtype)), normal(5, seed=2, dtype=dtype), normal(1, 5, seed=3, dtype=dtype)
    powers = a ** torch.arange(1, steps + 1).view(-1, 1, 1)
    expected = powers * h + b * (1 - powers) / (1 - a)
    found = operator(cuda_device, a, b.expand(steps, 1, 5), h)
    assert_close("states", found, expected, 1e-12)


@pytest.mark.parametrize("steps", [1, 31, 127, 128, 4097])
def test_transitions_of_one_sum_the_inputs(cuda_device, steps):
    inputs = torch.arange(2.0 * steps).view(steps, 2, 1)
    found = operator(cuda_device, torch.ones(1), inputs, reverse=True)
    assert torch.equal(found, inputs.flip(0).cumsum(0).flip(0))  # whole numbers below 2^24: exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("constant", [True, False])
def test_a_number_has_the_same_bits_whatever_its_companions(cuda_device, constant, dtype):
    steps, chosen = 140, [0, 3, 1000, MANY]
    inputs, initial = normal(steps, 1, MANY + 1, dtype=dtype), normal(1, MANY + 1, seed=2, dtype=dtype)
    transition = contractive(normal(*((MANY + 1,) if constant else inputs.shape), seed=3, dtype=dtype))
    whole = operator(cuda_device, transition, inputs, initial)[:, :, chosen]
    assert torch.equal(whole, operator(cuda_device, transition[..., chosen], inputs[..., chosen], initial[:, chosen]))
    for i, lane in enumerate(chosen):
        one = slice(lane, lane + 1)
        alone = operator(cuda_device, transition[..., one], inputs[..., one], initial[:, one])
        assert torch.equal(whole[:, :, i : i + 1], alone), f"number {lane}"


@pytest.mark.parametrize("steps", [9, 700])
def test_the_order_of_threads_changes_no_bit(cuda_device, steps):
    inputs, transition = normal(steps, 5, 7), contractive(normal(steps, 5, 7, seed=3))
    blocks, parts = normal(3, 11, 11) / 8, normal(9, 5, 33)
    results = []
    for seed in (1, 2, 3):
        cuda_device.reseed(seed)
        results.append(
            (operator(cuda_device, transition, inputs), block_scan(*map(cuda_device.tensor, (blocks, parts))))
        )
    for again in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, results[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
@pytest.mark.parametrize("lanes", [4, MANY])
@every_direction
def test_a_product_that_overflows_leaves_a_state_of_zero_alone(cuda_device, reverse, lanes, dtype):
    steps = 160
    order = (lambda t: steps - 1 - t) if reverse else (lambda t: t)
    transition, inputs = torch.full((steps, 1, lanes), 0.5, dtype=dtype), torch.zeros(steps, 1, lanes, dtype=dtype)
    inputs[[order(t) for t in (0, 75, 90, 130)], 0, :2] = 1
    inputs[:, :, 2:] = normal(steps, 1, lanes - 2, dtype=dtype)
    zero, huge = [order(t) for t in (1, 97)], [order(t) for t in (*range(34, 54), *range(100, 120))]
    transition[zero, 0, 1] = 0
    transition[huge, 0, 1] = 1e20 if dtype == torch.float32 else 1e200
    states = operator(cuda_device, transition, inputs, reverse=reverse)
    assert states.isfinite().all()
    assert_close("states", states, loop(transition, inputs, reverse=reverse), tolerance(dtype))
    usual = transition.clone()
    usual[:, 0, 1] = 0.5
    clean = operator(cuda_device, usual, inputs, reverse=reverse)
    clean[:, 0, 1] = states[:, 0, 1]
    assert torch.equal(states, clean), "a number felt its companion's overflow"


@pytest.mark.parametrize("lanes", [3, MANY])
def test_what_overflows_in_the_loop_overflows_here_and_stays_so(cuda_device, lanes):
    steps = 200
    transition, inputs = torch.full((steps, 1, lanes), 0.5), torch.ones(steps, 1, lanes)
    transition[40:50, 0, 1] = 1e30
    states = operator(cuda_device, transition, inputs)
    infinite = torch.zeros(steps, dtype=torch.bool)
    infinite[41:] = True  # 1e60 is no float32
    assert torch.equal(states[:, 0, 1].isposinf(), infinite)
    assert states[:, 0, [0, 2]].isfinite().all()


@pytest.mark.parametrize("steps", [5, 300])
@every_direction
def test_a_transition_that_no_step_takes_is_not_read(cuda_device, reverse, steps):
    transition, inputs = contractive(normal(steps, 2, 4)), normal(steps, 2, 4, seed=2)
    first, last = (-1, 0) if reverse else (0, -1)
    for adjoint, unread in ((False, first), (True, last)):
        clean = operator(cuda_device, transition, inputs, reverse=reverse, adjoint=adjoint)
        spoilt = transition.clone()
        spoilt[unread] = float("nan")
        assert torch.equal(operator(cuda_device, spoilt, inputs, reverse=reverse, adjoint=adjoint), clean)
    blocks = torch.full((2, 2, 2), float("inf"), dtype=REAL)
    one = block_scan(*map(cuda_device.tensor, (blocks, inputs[:1])), reverse=reverse)
    assert torch.equal(one.cpu(), inputs[:1])


STRIDED = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced": lambda t: torch.stack((t, t + 1), dim=-1)[..., 0],
    "conjugated": lambda t: t.conj().resolve_conj().conj(),
    "negated": lambda t: torch._neg_view(-t),
}


@pytest.mark.parametrize("how", STRIDED)
@pytest.mark.parametrize("kind", ["constant", "per step", "blocks"])
def test_how_arguments_lie_in_memory_does_not_matter(cuda_device, kind, how):
    shape = {"constant": (6,), "per step": (5, 2, 6), "blocks": (2, 3, 3)}[kind]
    given = [normal(*s, seed=i, dtype=COMPLEX) for i, s in enumerate((shape, (5, 2, 6), (2, 6)))]
    function, witness = (block_scan, block_loop) if kind == "blocks" else (scan, loop)
    states = function(*(STRIDED[how](cuda_device.tensor(t)) for t in given))
    assert_close("states", states, witness(*given), 1e-12)


@pytest.mark.parametrize(("time", "batch", "lanes"), [(0, 2, 4), (3, 0, 4), (3, 2, 0), (0, 0, 0), (200, 0, 4)])
@every_direction
def test_nothing_to_do(cuda_device, reverse, time, batch, lanes):
    for function, shape in ((scan, (lanes,)), (scan, (time, batch, lanes)), (block_scan, (2, lanes // 2, lanes // 2))):
        given = (normal(*shape), normal(time, batch, lanes), normal(batch, lanes))
        leaves = [cuda_device.tensor(t).requires_grad_() for t in given]
        states = function(*leaves, reverse=reverse)
        assert states.shape == (time, batch, lanes)
        for gradient, leaf in zip(torch.autograd.grad(states.sum(), leaves), leaves, strict=True):
            assert gradient.shape == leaf.shape
            assert not gradient.any() or leaf is leaves[1]


# By columns in shared memory, in global memory (120 columns of double), with states there too (515); 601 * 2 pairs of
# a sequence and a block are so many that a thread takes several.
BLOCKS = [(1, 1, 1), (2, 3, 3), (5, 1, 31), (3, 2, 33), (9, 3, 5), (2, 1, 65), (3, 2, 120), (601, 2, 3), (2, 1, 515)]


@every_dtype
@pytest.mark.parametrize(("batch", "blocks", "m"), BLOCKS)
def test_blocks_equal_the_loop(cuda_device, batch, blocks, m, dtype):
    steps = 3 if m > 200 else 6
    matrices = normal(blocks, m, m, seed=3, dtype=dtype) / m**0.5
    inputs, initial = normal(steps, batch, blocks * m, dtype=dtype), normal(batch, blocks * m, seed=2, dtype=dtype)
    for reverse, start in itertools.product((False, True), (None, initial)):
        given = [cuda_device.tensor(t) for t in (matrices, inputs, start) if t is not None]
        states = block_scan(*given, reverse=reverse)
        assert states.dtype == dtype
        expected = block_loop(matrices, inputs, start, reverse=reverse)
        assert_close(f"states, reverse {reverse}, initial {start is not None}", states, expected, tolerance(dtype))


def test_a_rotation_turns_its_states(cuda_device):
    steps, angle = torch.arange(1.0, 65, dtype=REAL), 0.1
    c, s = np.cos(angle), np.sin(angle)
    blocks = torch.tensor([[[c, -s], [s, c]]], dtype=REAL)
    inputs, initial = torch.zeros(64, 1, 2, dtype=REAL), torch.tensor([[1.0, 0.0]], dtype=REAL)
    states = block_scan(*map(cuda_device.tensor, (blocks, inputs, initial)))
    expected = torch.stack((torch.cos(angle * steps), torch.sin(angle * steps)), 1).unsqueeze(1)
    assert_close("states", states, expected, 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_sequence_has_the_same_bits_whatever_its_companions(cuda_device, dtype):
    blocks, inputs, initial = (
        normal(2, 7, 7, dtype=dtype) / 3,
        normal(6, 520, 14, dtype=dtype),
        normal(520, 14, dtype=dtype),
    )
    whole = block_scan(*map(cuda_device.tensor, (blocks, inputs, initial))).cpu()
    for b, count in ((0, 1), (517, 1), (100, 33)):
        some = slice(b, b + count)
        part = block_scan(*map(cuda_device.tensor, (blocks, inputs[:, some], initial[some]))).cpu()
        assert torch.equal(whole[:, some], part), f"sequences {b} to {b + count}"


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("with_initial", [False, True])
@every_direction
@pytest.mark.parametrize("kind", ["constant", "per step", "blocks"])
def test_derivatives_of_two_orders_in_both_modes(cuda_device, kind, reverse, with_initial, dtype):
    shape = {"constant": (4,), "per step": (3, 2, 4), "blocks": (2, 2, 2)}[kind]
    leaves = [
        0.6 * normal(*shape, seed=3, dtype=dtype),
        normal(3, 2, 4, dtype=dtype),
        normal(2, 4, seed=2, dtype=dtype),
    ]
    leaves = [cuda_device.tensor(t).requires_grad_() for t in leaves[: 3 if with_initial else 2]]

    def function(*given):
        return (block_scan if kind == "blocks" else scan)(*given, reverse=reverse)

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("constant", [True, False])
def test_derivatives_through_chunks(cuda_device, constant, dtype):
    leaves = [contractive(normal(*((3,) if constant else (130, 1, 3)), dtype=dtype)), normal(130, 1, 3, dtype=dtype)]
    leaves = [cuda_device.tensor(t).requires_grad_() for t in (*leaves, normal(1, 3, dtype=dtype))]
    assert torch.autograd.gradcheck(scan, leaves, fast_mode=True)


def test_tensors_of_two_devices_are_refused_by_name(cuda_device):
    elsewhere = "meta" if cuda_device.name == "emulated" else "cpu"
    inputs, initial = cuda_device.tensor(normal(4, 2, 4)), cuda_device.tensor(normal(2, 4))
    message = "{}: expected a tensor on " + str(inputs.device) + " as inputs is, got " + elsewhere
    for name, run, transition, flags in (
        ("transition", _scan_compiled, normal(4), (False, False)),
        ("blocks", _block_scan_compiled, normal(2, 2, 2), (False,)),
    ):
        with pytest.raises(RuntimeError, match=message.format(name)):
            run(transition.to(elsewhere), inputs, None, *flags)
        with pytest.raises(RuntimeError, match=message.format("initial")):
            run(cuda_device.tensor(transition), inputs, initial.to(elsewhere), *flags)


class Raw:
    """Memory of the right sizes for a function of the device, and the arguments that describe it."""

    def __init__(self, device, function):
        names = ("transition" if function == "scan" else "blocks", "inputs", "initial", "states")
        shapes = ((6,) if function == "scan" else (2, 3, 3), (140, 2, 6), (2, 6), (140, 2, 6))
        self.held = [device.tensor(normal(*shape)) for shape in shapes]
        self.backend = backends.backend_of(self.held[0])
        self.arguments = {name: (t.data_ptr(), t.numel()) for name, t in zip(names, self.held, strict=True)}
        self.arguments |= {"dtype": "float64", "reverse": False}
        own = {"sizes": [140, 2, 6], "constant": True, "adjoint": False}
        self.arguments |= own if function == "scan" else {"sizes": [140, 2, 2, 3]}
        self.function = getattr(self.backend.functions, function)

    def run(self, workspace=None, **changes):
        return self.function(**{**self.arguments, "execution": self.backend.execution("fp32", workspace), **changes})


BAD_RAW = {
    "dtype": {"dtype": "float16"},
    "sizes": {"sizes": [4]},
    "inputs": {"inputs": (1, 3)},
    "initial": {"initial": (1, 3)},
    "states": {"states": (0, 1680)},
}


@pytest.mark.parametrize("named", BAD_RAW)
@pytest.mark.parametrize("function", ["scan", "block_scan"])
def test_raw_functions_refuse_what_does_not_fit_by_name(cuda_device, function, named):
    with pytest.raises(ValueError, match=named):
        Raw(cuda_device, function).run(**BAD_RAW[named])


def test_a_workspace_is_asked_for_and_needed(cuda_device):
    raw = Raw(cuda_device, "scan")
    untouched = raw.held[-1].clone()
    needed = raw.run()
    assert needed > 0
    assert torch.equal(raw.held[-1], untouched), "a call without a workspace did more than count"
    workspace = torch.empty(needed, dtype=torch.uint8, device=untouched.device)
    with pytest.raises(ValueError, match="workspace: expected at least"):
        raw.run((workspace.data_ptr(), needed - 1))
    assert torch.equal(raw.held[-1], untouched)
    assert raw.run((workspace.data_ptr(), needed)) == needed
    assert_close("states", raw.held[-1], loop(*raw.held[:3]), 1e-12)
