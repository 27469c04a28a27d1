import itertools
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from networks import SIZES
from torch.autograd import forward_ad

from lsc_ext import _C
from lsc_ext.scan import block_scan, scan
from lsc_ext.testing import TOLERANCES, assert_close

REAL, COMPLEX = torch.float64, torch.complex128
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
FUNCTIONS = {"constant": scan, "per step": scan, "blocks": block_scan}


def normal(*shape, seed=1, dtype=REAL):
    wide = COMPLEX if dtype.is_complex else REAL
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype)


def tolerance(dtype):
    return TOLERANCES[dtype.to_real()]


def arguments(kind, *, time=4, batch=2, lanes=4, dtype=REAL):
    """Transition, inputs and initial states; blocks have half the lanes each."""
    inputs, initial = normal(time, batch, lanes, dtype=dtype), normal(batch, lanes, seed=2, dtype=dtype)
    shape = {"constant": (lanes,), "per step": (time, batch, lanes), "blocks": (2, lanes // 2, lanes // 2)}[kind]
    return 0.6 * normal(*shape, seed=3, dtype=dtype), inputs, initial


def loop(transition, inputs, initial=None, *, reverse=False, kind):
    """The recurrence step by step in torch, differentiable."""
    state = torch.zeros_like(inputs[:1].sum(0)) if initial is None else initial
    states = [None] * inputs.shape[0]
    for t in reversed(range(inputs.shape[0])) if reverse else range(inputs.shape[0]):
        if kind == "blocks":
            moved = (transition @ state.unflatten(1, transition.shape[:2]).unsqueeze(-1)).flatten(1)
        else:
            moved = (transition[t] if kind == "per step" else transition) * state
        state = states[t] = moved + inputs[t]
    return torch.stack(states) if states else torch.zeros_like(inputs)


def both(kind, reverse):
    """The operator and the loop, as functions of tensors alone."""
    return (
        lambda *given: FUNCTIONS[kind](*given, reverse=reverse),
        lambda *given: loop(*given, reverse=reverse, kind=kind),
    )


every_kind = pytest.mark.parametrize("kind", FUNCTIONS)
every_direction = pytest.mark.parametrize("reverse", [False, True])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lanes", [2 * size for size in SIZES])
@every_kind
def test_states_and_gradients_equal_the_loop(kind, lanes, dtype):
    for reverse, with_initial in itertools.product((False, True), repeat=2):
        ours, theirs = both(kind, reverse)
        leaves = arguments(kind, time=7, batch=3, lanes=lanes, dtype=dtype)[: 3 if with_initial else 2]
        if kind == "blocks":
            leaves = (leaves[0] / lanes**0.5, *leaves[1:])
        wide = [leaf.to(COMPLEX if dtype.is_complex else REAL).requires_grad_() for leaf in leaves]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        states, expected = ours(*leaves), theirs(*wide)
        assert states.dtype == dtype
        assert_close("states", states, expected, tolerance(dtype).forward)
        upstream = normal(*states.shape, seed=9, dtype=dtype)
        found = torch.autograd.grad(states, leaves, upstream)
        for a, e in zip(found, torch.autograd.grad(expected, wide, upstream.to(expected.dtype)), strict=True):
            assert_close("gradient", a, e, tolerance(dtype).gradient)


@pytest.mark.parametrize("with_initial", [False, True])
@every_direction
@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@every_kind
def test_derivatives_of_two_orders_in_both_modes(kind, dtype, reverse, with_initial):
    function = both(kind, reverse)[0]
    for steps in (3, 1) if with_initial else (3,):
        leaves = arguments(kind, time=steps, lanes=2, dtype=dtype)[: 3 if with_initial else 2]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        options = {"fast_mode": True, "check_batched_grad": True}
        assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, **options)
        assert torch.autograd.gradgradcheck(
            function, leaves, check_fwd_over_rev=True, check_rev_over_rev=True, **options
        )


def pushed(function, direction):
    return lambda point: torch.func.jvp(function, (point,), (direction,))[1]


def pulled(function, direction):
    return lambda point: (torch.func.grad(function)(point) * direction).sum()


@every_direction
@pytest.mark.parametrize("modes", list(itertools.product((pushed, pulled), repeat=3)))
@every_kind
def test_third_derivatives_in_every_order_of_modes(kind, modes, reverse):
    leaves = arguments(kind)
    for which in range(3):
        direction = normal(*leaves[which].shape, seed=5)

        def loss(function, which=which):
            weight = normal(*leaves[1].shape, seed=6)
            return lambda point: (
                function(*(point * point if i == which else leaf for i, leaf in enumerate(leaves))).square() * weight
            ).sum()

        ours, theirs = (loss(function) for function in both(kind, reverse))
        for mode in modes:
            ours, theirs = mode(ours, direction), mode(theirs, direction)
        assert_close("derivative", ours(leaves[which]), theirs(leaves[which]), 1e-12)


@pytest.mark.parametrize("given", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
@every_kind
def test_tangents_of_some_arguments_alone(kind, given):
    leaves, directions = arguments(kind), [normal(*t.shape, seed=8) for t in arguments(kind)]
    results = []
    for function in both(kind, False):
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(leaf, d) if i in given else leaf
                for i, (leaf, d) in enumerate(zip(leaves, directions, strict=True))
            ]
            results.append(forward_ad.unpack_dual(function(*duals)).tangent)
    assert_close("tangent", *results, 1e-13)


@every_direction
@pytest.mark.parametrize(
    "dims", [d for d in itertools.product((None, 0, 1), repeat=3) if any(x is not None for x in d)]
)
@every_kind
def test_vmap_of_states_and_gradients(kind, dims, reverse):
    function = both(kind, reverse)[0]
    plain = arguments(kind)
    several = [t if d is None else torch.stack((t, 2 * t, -t), d) for t, d in zip(plain, dims, strict=True)]
    gradient = torch.func.grad(lambda *given: function(*given).square().sum(), argnums=(0, 1, 2))
    states = torch.func.vmap(function, dims)(*several)
    gradients = torch.func.vmap(gradient, dims)(*several)
    for i in range(3):
        each = [t if d is None else t.select(d, i) for t, d in zip(several, dims, strict=True)]
        assert_close("states", states[i], function(*each), 1e-13)
        for a, e in zip(gradients, gradient(*each), strict=True):
            assert_close("gradient", a[i], e, 1e-13)


def test_vmap_of_the_adjoint_with_nothing_else_batched():
    leaves = arguments("per step")
    jacobian = torch.func.jacrev(lambda a: torch.func.jacfwd(lambda b: scan(a, b))(leaves[1]))(leaves[0])
    expected = torch.func.jacrev(lambda a: torch.func.jacfwd(lambda b: loop(a, b, kind="per step"))(leaves[1]))(
        leaves[0]
    )
    assert_close("jacobian", jacobian, expected, 1e-13)


@every_kind
def test_compiled_in_one_graph_gives_the_same_numbers(kind):
    leaves = [leaf.requires_grad_() for leaf in arguments(kind, dtype=torch.float32)]
    compiled = torch.compile(FUNCTIONS[kind], fullgraph=True, backend="aot_eager")
    expected, actual = FUNCTIONS[kind](*leaves), compiled(*leaves)
    assert torch.equal(actual, expected)
    found, wanted = (torch.autograd.grad(states.square().sum(), leaves) for states in (actual, expected))
    assert all(torch.equal(a, e) for a, e in zip(found, wanted, strict=True))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("kind", ["constant", "per step"])
def test_scan_passes_opcheck(kind, adjoint, dtype):
    transition, inputs, initial = (leaf.requires_grad_() for leaf in arguments(kind, dtype=dtype))
    torch.library.opcheck(
        torch.ops.lsc_ext.scan.default, (transition, inputs, None if adjoint else initial, True, adjoint)
    )


def test_block_scan_passes_opcheck():
    leaves = [leaf.requires_grad_() for leaf in arguments("blocks")]
    torch.library.opcheck(torch.ops.lsc_ext.block_scan.default, (*leaves, False))


STRIDED = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced": lambda t: torch.stack((t, t + 1), dim=-1)[..., 0],
    "conjugated": lambda t: t.conj().resolve_conj().conj(),
    "negated": lambda t: torch._neg_view(-t),
}


@pytest.mark.parametrize("how", STRIDED)
@every_kind
def test_how_arguments_lie_in_memory_does_not_matter(kind, how):
    plain = arguments(kind, dtype=COMPLEX)
    assert torch.equal(FUNCTIONS[kind](*map(STRIDED[how], plain)), FUNCTIONS[kind](*plain))


@pytest.mark.parametrize(("time", "batch", "lanes"), [(0, 2, 4), (3, 0, 4), (3, 2, 0), (0, 0, 0)])
@every_direction
@every_kind
def test_nothing_to_do(kind, reverse, time, batch, lanes):
    leaves = [leaf.requires_grad_() for leaf in arguments(kind, time=time, batch=batch, lanes=lanes)]
    states = FUNCTIONS[kind](*leaves, reverse=reverse)
    assert states.shape == (time, batch, lanes)
    for gradient, leaf in zip(torch.autograd.grad(states.sum(), leaves), leaves, strict=True):
        assert gradient.shape == leaf.shape
        assert not gradient.any() or leaf is leaves[1]


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@every_direction
@every_kind
def test_many_steps_equal_the_loop(kind, reverse, dtype):
    transition, inputs, initial = arguments(kind, time=65536, batch=1, lanes=6, dtype=dtype)
    transition = transition / (1 + transition.abs())
    wide, numpy = (t.squeeze(1).numpy() if t.dim() == 3 and kind != "blocks" else t.numpy() for t in (transition,)), []
    a, b, h = *wide, inputs.squeeze(1).numpy(), initial.squeeze(0).numpy()
    if kind == "blocks":
        a = torch.block_diag(*transition).numpy()
    for t in reversed(range(65536)) if reverse else range(65536):
        h = (a @ h if kind == "blocks" else (a[t] if kind == "per step" else a) * h) + b[t]
        numpy.append(h)
    expected = torch.from_numpy(np.stack(numpy[::-1] if reverse else numpy))
    states = FUNCTIONS[kind](transition, inputs, initial, reverse=reverse)
    assert_close("states", states.squeeze(1), expected, tolerance(dtype).forward)


@every_direction
def test_gradient_of_a_constant_transition_is_the_sum_over_many_steps(reverse):
    transition, inputs, initial = arguments("constant", time=50_000, batch=1, lanes=6, dtype=COMPLEX)
    transition = (transition / (1 + transition.abs())).requires_grad_()
    upstream = normal(*inputs.shape, seed=9, dtype=COMPLEX)
    spread = transition.detach().expand_as(inputs).clone().requires_grad_()
    found, expected = (
        torch.autograd.grad(scan(a, inputs, initial, reverse=reverse), a, upstream)[0] for a in (transition, spread)
    )
    assert_close("gradient", found, expected.sum((0, 1)), TOLERANCES[REAL].gradient)


@pytest.mark.parametrize(("steps", "lanes"), [(9, 1300), (300_000, 4)])
@every_kind
def test_the_number_of_threads_changes_no_bit(kind, steps, lanes):
    leaves = [leaf.requires_grad_() for leaf in arguments(kind, time=steps, lanes=lanes, dtype=torch.float32)]
    if kind == "blocks":
        leaves[0] = (leaves[0].detach() / lanes**0.5).requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(FUNCTIONS[kind](*leaves).detach())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@every_kind
def test_a_lane_has_the_same_states_whatever_its_companions(kind):
    transition, inputs, initial = arguments(kind, batch=5, lanes=22, dtype=torch.complex64)
    alone = transition[:, 3:4] if kind == "per step" else transition
    whole = FUNCTIONS[kind](transition, inputs, initial)
    assert torch.equal(whole[:, 3:4], FUNCTIONS[kind](alone, inputs[:, 3:4], initial[3:4]))


@pytest.mark.parametrize(
    ("transition", "inputs", "initial"),
    [(REAL, COMPLEX, None), (COMPLEX, REAL, REAL), (torch.float32, REAL, torch.complex64)],
)
def test_dtypes_are_promoted(transition, inputs, initial):
    a, b, h = normal(3, dtype=transition), normal(4, 2, 3, dtype=inputs), None
    if initial is not None:
        h = normal(2, 3, dtype=initial).requires_grad_()
    leaves = [a.requires_grad_(), b.requires_grad_(), *(() if h is None else (h,))]
    states = scan(*leaves)
    assert states.dtype == COMPLEX
    expected = scan(*(leaf.to(COMPLEX) for leaf in leaves))
    assert torch.equal(states, expected)
    found, wanted = (torch.autograd.grad(s.abs().square().sum(), leaves) for s in (states, expected))
    for gradient, e, leaf in zip(found, wanted, leaves, strict=True):
        assert gradient.dtype == leaf.dtype
        assert torch.equal(gradient, e)


def test_a_transition_that_no_step_takes_is_not_read():
    transition, inputs, _ = arguments("per step")
    clean, transition[0] = scan(transition, inputs), float("nan")
    transition.requires_grad_()
    states = scan(transition, inputs)
    assert torch.equal(states, clean)
    (gradient,) = torch.autograd.grad(states.sum(), transition)
    assert not gradient[0].any()
    assert gradient.isfinite().all()


BAD_SCANS = {
    "inputs": ((normal(3), normal(4, 3)), ValueError, r"inputs: expected shape \(T, B, N\), got \(4, 3\)"),
    "transition": ((normal(2), normal(4, 2, 3)), ValueError, r"transition: expected shape \(3,\) or \(4, 2, 3\), got"),
    "initial": ((normal(3), normal(4, 2, 3), normal(3)), ValueError, r"initial: expected shape \(2, 3\), got \(3,\)"),
    "half": ((normal(3).half(), normal(4, 2, 3)), TypeError, "transition: expected float32, .*got torch.float16"),
    "integers": ((normal(3), torch.ones(4, 2, 3, dtype=torch.int64)), TypeError, "inputs: expected .*got torch.int64"),
    "list": ((normal(3), normal(4, 2, 3), [0.0]), TypeError, "initial: expected a torch.Tensor, got list"),
    "none": ((normal(3), None), TypeError, "inputs: expected a torch.Tensor, got NoneType"),
}


@pytest.mark.parametrize("case", BAD_SCANS)
def test_scan_refuses(case):
    given, error, message = BAD_SCANS[case]
    with pytest.raises(error, match=message):
        scan(*given)


@pytest.mark.parametrize("shape", [(3, 2, 3), (4,), (2, 3, 3), (4, 1), (1, 4, 1)])
def test_block_scan_refuses_blocks_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"blocks: expected shape \(K, m, m\) with K \* m == 4, got"):
        block_scan(normal(*shape), normal(5, 2, 4))


def test_the_adjoint_refuses_an_initial_state():
    with pytest.raises(ValueError, match="initial: expected None for the adjoint, got a tensor"):
        torch.ops.lsc_ext.scan(*arguments("constant"), False, True)


class Raw:
    """Memory of the right sizes for the raw functions, and the arguments that describe it."""

    def __init__(self, function):
        rng = np.random.default_rng(0)
        names = ("transition" if function == "scan" else "blocks", "inputs", "initial", "states")
        shapes = ((6,) if function == "scan" else (2, 3, 3), (4, 2, 6), (2, 6), (4, 2, 6))
        self.held = [rng.normal(size=shape) for shape in shapes]
        self.arguments = {name: (a.ctypes.data, a.size) for name, a in zip(names, self.held, strict=True)}
        self.arguments |= {"dtype": "float64", "reverse": False, "threads": 1}
        own = {"sizes": [4, 2, 6], "constant": True, "adjoint": False}
        self.arguments |= own if function == "scan" else {"sizes": [4, 2, 2, 3]}
        self.function = getattr(_C, function)

    def run(self, **changes):
        self.function(**{**self.arguments, **changes})


BAD_RAW = {
    "dtype": {"dtype": "float16"},
    "sizes": {"sizes": [4]},
    "threads": {"threads": 0},
    "inputs": {"inputs": (1, 3)},
    "initial": {"initial": (1, 3)},
    "states": {"states": (0, 48)},
}


@pytest.mark.parametrize("named", BAD_RAW)
@pytest.mark.parametrize("function", ["scan", "block_scan"])
def test_raw_functions_refuse_what_does_not_fit_by_name(function, named):
    raw = Raw(function)
    raw.run()
    with pytest.raises(ValueError, match=named):
        raw.run(**BAD_RAW[named])


@pytest.mark.parametrize("size", [-1, 2**31, 2**62, 2**63 - 1])
@pytest.mark.parametrize("function", ["scan", "block_scan"])
def test_raw_functions_refuse_sizes_that_the_memory_has_not(function, size):
    raw = Raw(function)
    right = raw.arguments["sizes"]
    for place in range(len(right)):
        for others in (right, [0] * len(right), [2**62] * len(right)):
            claimed = [size if i == place else other for i, other in enumerate(others)]
            with pytest.raises(ValueError, match="expected"):
                raw.run(sizes=claimed)


def test_ctrl_c_stops_a_long_scan():
    program = textwrap.dedent(
        """
        import sys, torch
        from lsc_ext.scan import block_scan
        blocks, inputs = torch.randn(1, 512, 512) / 600, torch.randn(60_000, 1, 512)
        print("go", flush=True)
        try:
            block_scan(blocks, inputs)
        except KeyboardInterrupt:
            sys.exit(77)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(0.3)
    sent = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 77
    process.stdout.close()
    assert time.perf_counter() - sent < 5
