"""The compiled response to an impulse and its derivatives: against powers of the matrix, autograd through products in
torch, and differences."""

import pytest
import torch

from lsc_ext import _C, ops
from lsc_ext.impulse import impulse_mismatch, impulse_response, push_impulse
from lsc_ext.testing import TOLERANCES, assert_close

F64 = torch.float64
#: (K, m, I, O, T): blocks side by side and one after another, around a vector register, one of everything, none.
SIZES = [
    (1, 1, 1, 1, 1),
    (1, 3, 2, 1, 7),
    (1, 31, 1, 2, 9),
    (1, 33, 3, 1, 5),
    (1, 65, 1, 1, 31),
    (2, 2, 1, 1, 12),
    (3, 5, 2, 4, 33),
    (5, 1, 1, 1, 9),
    (33, 2, 1, 1, 20),
    (3, 8, 2, 2, 11),
    (2, 9, 1, 3, 65),
    (4, 4, 0, 1, 5),
    (4, 4, 1, 0, 5),
]


def matrices(K, m, I, O, dtype=F64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    A = torch.randn(K, m, m, dtype=F64, generator=draw) * 0.6 / m**0.5
    B, C = torch.randn(K * m, I, dtype=F64, generator=draw), torch.randn(O, K * m, dtype=F64, generator=draw)
    return tuple(z.to(dtype) for z in (A, B, C))


def by_powers(A, B, C, steps):
    """By the definition, a power after another."""
    whole, states, found = torch.block_diag(*A), B, []
    for _ in range(steps):
        found.append(C @ states)
        states = whole @ states
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("size", SIZES)
def test_the_response_and_its_gradient_are_those_of_powers(size, dtype):
    *shape, steps = size
    given = [z.requires_grad_() for z in matrices(*shape, dtype=dtype)]
    exact = [z.detach().double().requires_grad_() for z in given]
    found, expected = impulse_response(*given, steps), by_powers(*exact, steps)
    assert_close("response", found.detach(), expected.detach(), TOLERANCES[dtype].forward)

    slope = torch.randn(found.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, given, slope.to(dtype))
    wanted = torch.autograd.grad(expected, exact, slope.to(dtype).double(), materialize_grads=True)
    for name, one, other in zip("ABC", gradients, wanted, strict=True):
        assert_close(f"gradient of {name}", one, other, TOLERANCES[dtype].forward)


@pytest.mark.parametrize("size", SIZES)
def test_a_change_of_the_matrices_moves_the_response_along_its_derivative(size):
    *shape, steps = size
    given, changes = matrices(*shape), matrices(*shape, seed=5)
    expected = torch.func.jvp(lambda *z: by_powers(*z, steps), given, changes)[1]
    assert_close("change", push_impulse(given, changes, steps), expected, TOLERANCES[F64].forward)


@pytest.mark.parametrize(("K", "m"), [(3, 3), (1, 5), (2, 9), (33, 2), (1, 1)])
def test_the_kernels_write_all_they_should_and_nothing_else(K, m):
    I, O, T = 2, 2, 6
    A, B, C = matrices(K, m, I, O)
    sizes = [T, K, m, I, O]

    def guarded(count):
        memory = torch.full((count + 2,), torch.nan, dtype=F64)
        return memory, memory[1:-1]

    counts = [_C.impulse_states_size("float64", sizes), T * O * I, T * O * I, A.numel(), B.numel(), C.numel()]
    whole, (states, response, change, *gradients) = zip(*map(guarded, counts), strict=True)
    _C.impulse_response("float64", sizes, *map(ops.buffer, (A, B, C, states, response)), 2)
    assert_close("response", response.view(T, O, I), by_powers(A, B, C, T), TOLERANCES[F64].forward)
    _C.impulse_push("float64", sizes, *map(ops.buffer, (A, C, A, B, C, states, change)), 2)
    slope = response.clone()  # held by name: of a temporary, only the address would be left
    _C.impulse_pull("float64", sizes, *map(ops.buffer, (A, C, slope, states, *gradients)), 2)
    for memory in whole:
        assert memory[[0, -1]].isnan().all()
        assert memory[1:-1].isfinite().all()


@pytest.mark.parametrize("call", ["impulse_response", "impulse_pull", "impulse_push"])
def test_the_bits_do_not_depend_on_the_number_of_threads(call):
    K, m, I, O, T = 1, 40, 5, 3, 300
    A, B, C = matrices(K, m, I, O)
    sizes, found = [T, K, m, I, O], []
    for threads in (1, 2, 3):
        states = torch.empty(_C.impulse_states_size("float64", sizes), dtype=F64)
        response = torch.empty(T, O, I, dtype=F64)
        _C.impulse_response("float64", sizes, *map(ops.buffer, (A, B, C, states, response)), threads)
        outputs = [response]
        if call == "impulse_pull":
            outputs = [torch.empty_like(z) for z in (A, B, C)]
            _C.impulse_pull("float64", sizes, *map(ops.buffer, (A, C, response, states, *outputs)), threads)
        if call == "impulse_push":
            outputs = [torch.empty_like(response)]
            _C.impulse_push("float64", sizes, *map(ops.buffer, (A, C, A, B, C, states, *outputs)), threads)
        found.append(outputs)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_derivatives_of_every_order_and_kind():
    given = [z.requires_grad_() for z in matrices(2, 2, 1, 2)]
    assert torch.autograd.gradcheck(lambda *z: impulse_response(*z, 4), given, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda *z: impulse_response(*z, 4), given)
    third = torch.func.jacfwd(lambda A: impulse_response(A, *given[1:], 4))(given[0].detach())
    wanted = torch.autograd.functional.jacobian(lambda A: by_powers(A, *given[1:], 4), given[0].detach())
    assert_close("forward mode", third.detach(), wanted, TOLERANCES[F64].forward)


def test_forward_mode_by_dual_numbers_is_refused():
    given = matrices(1, 3, 1, 1)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(given[0], torch.ones_like(given[0]))
        with pytest.raises((NotImplementedError, RuntimeError), match="jvp|forward"):
            impulse_response(dual, *given[1:], 4)


def test_strided_and_expanded_matrices():
    A, B, _ = matrices(1, 6, 1, 1)
    views = A.mT.contiguous().mT, torch.stack((B, B), -1)[..., 0], torch.ones(1, 1, dtype=F64).expand(1, 6)
    found = [z.requires_grad_() for z in (v.detach() for v in views)]
    expected = by_powers(A, B, torch.ones(1, 6, dtype=F64), 8)
    response = impulse_response(*found, 8)
    assert_close("response", response.detach(), expected, TOLERANCES[F64].forward)
    again = [z.detach().clone().requires_grad_() for z in found]
    slopes = torch.autograd.grad(response.sum(), found), torch.autograd.grad(by_powers(*again, 8).sum(), again)
    for one, other in zip(*slopes, strict=True):
        assert_close("gradient", one, other, TOLERANCES[F64].forward)


@pytest.mark.parametrize("tie", [lambda B: B.mT, lambda B: 2 * B.mT, lambda B: B])
def test_matrices_that_depend_on_each_other_have_second_derivatives(tie):
    """B counts once as itself and once through C, in derivatives of derivatives too."""
    A, B, _ = matrices(1, 1, 1, 1) if tie(torch.ones(2, 1)).shape == (2, 1) else matrices(1, 3, 1, 1)
    W, target = torch.linspace(1, 0.1, 6, dtype=F64), torch.randn(6, 1, 1, dtype=F64)
    D = torch.zeros(1, 1, dtype=F64)

    def compiled(B):
        return impulse_mismatch(A, B, tie(B), D, target, lambda e: W.view(-1, 1, 1) * e)

    def plain(B):
        error = by_powers(A, B, tie(B), 6) - target
        return (W.view(-1, 1, 1) * error.square()).sum() / 2

    for of in (compiled, lambda B: (impulse_response(A, B, tie(B), 6) ** 2).sum()):
        expected = plain if of is compiled else lambda B: (by_powers(A, B, tie(B), 6) ** 2).sum()
        for found, wanted in (
            (torch.autograd.functional.jacobian(of, B), torch.autograd.functional.jacobian(expected, B)),
            (torch.autograd.functional.hessian(of, B), torch.autograd.functional.hessian(expected, B)),
        ):
            assert_close("derivative", found, wanted, TOLERANCES[F64].forward)


@pytest.mark.parametrize("turned", range(4))
def test_numbers_whose_sign_is_put_off_are_read_with_it(turned):
    given = list(matrices(1, 3, 1, 1))
    slope = torch.randn(5, 1, 1, dtype=F64)
    exact = [z.clone().requires_grad_() for z in given]
    if turned < 3:
        exact[turned] = (-given[turned]).requires_grad_()
        given[turned] = torch._neg_view(given[turned])
    given = [z.requires_grad_() for z in given]
    slopes = (torch._neg_view(slope), -slope) if turned == 3 else (slope, slope)
    found, expected = impulse_response(*given, 5), by_powers(*exact, 5)
    assert_close("response", found.detach(), expected.detach(), TOLERANCES[F64].forward)
    for one, other in zip(
        torch.autograd.grad(found, given, slopes[0]), torch.autograd.grad(expected, exact, slopes[1]), strict=True
    ):
        assert_close("gradient", one, other, TOLERANCES[F64].forward)
    changes = matrices(1, 3, 1, 1, seed=5)
    pushed = push_impulse(tuple(z.detach() for z in given), changes, 5)
    wanted = torch.func.jvp(lambda *z: by_powers(*z, 5), tuple(z.detach() for z in exact), changes)[1]
    assert_close("change", pushed, wanted, TOLERANCES[F64].forward)


def test_some_matrices_need_no_gradient_and_a_graph_may_stay():
    A, B, C = matrices(2, 3, 1, 1)
    B.requires_grad_()
    response = impulse_response(A, B, C, 5)
    first = torch.autograd.grad(response.sum(), B, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(response.sum(), B)[0])
    D, target = torch.zeros(1, 1, dtype=F64), torch.zeros(5, 1, 1, dtype=F64)
    loss = impulse_mismatch(A, B, C, D, target, lambda e: e)
    first = torch.autograd.grad(loss, B, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, B)[0])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, B)


@pytest.mark.parametrize("coloured", [False, True])
def test_the_mismatch_is_the_quadratic_form_and_has_its_derivatives(coloured):
    given = [z.requires_grad_() for z in matrices(2, 3, 2, 1)]
    D, target = torch.randn(1, 2, dtype=F64).requires_grad_(), torch.randn(7, 1, 2, dtype=F64)
    W = torch.randn(7, 7, dtype=F64)
    W = W + W.mT if coloured else torch.diag(torch.rand(7, dtype=F64))

    def weigh(e):
        return torch.tensordot(W, e, 1)

    def loss(A, B, C, D):
        return impulse_mismatch(A, B, C, D, target, weigh)

    error = by_powers(*given, 7) - target
    error = torch.cat((error[:1] + D, error[1:]))
    expected = (error * weigh(error)).sum() / 2
    assert_close("loss", loss(*given, D).detach(), expected.detach(), TOLERANCES[F64].forward)
    slopes = torch.autograd.grad(3 * loss(*given, D), (*given, D))
    for one, other in zip(slopes, torch.autograd.grad(3 * expected, (*given, D)), strict=True):
        assert_close("gradient", one, other, TOLERANCES[F64].forward)
    assert torch.autograd.gradgradcheck(loss, (*given, D))


def test_a_target_that_is_learned_gets_its_gradient():
    A, B, C = matrices(1, 2, 1, 1)
    target = torch.zeros(5, 1, 1, dtype=F64, requires_grad=True)
    D = torch.zeros(1, 1, dtype=F64)
    (slope,) = torch.autograd.grad(impulse_mismatch(A, B, C, D, target, lambda e: e), target)
    assert_close("slope", slope, -by_powers(A, B, C, 5), TOLERANCES[F64].forward)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda z: (z[0][0], *z[1:], 3), ValueError, r"A: expected shape \(K, m, m\)"),
        (lambda z: (z[0], z[1][:-1], z[2], 3), ValueError, r"B: expected shape \(4, I\), got \(3, 1\)"),
        (lambda z: (z[0], z[1], z[2].mT, 3), ValueError, r"C: expected shape \(O, 4\)"),
        (lambda z: (*z, 0), ValueError, "steps: expected at least 1, got 0"),
        (lambda z: (z[0].long(), *z[1:], 3), TypeError, "A: expected float32 or float64"),
        (lambda z: (z[0], z[1].float(), z[2], 3), TypeError, "B: expected torch.float64 as A has"),
        (lambda z: (z[0], z[1].to("meta"), z[2], 3), RuntimeError, "B: expected a tensor on cpu"),
    ],
)
def test_bad_input_is_named(change, error, says):
    with pytest.raises(error, match=says):
        impulse_response(*change(matrices(2, 2, 1, 1)))


@pytest.mark.parametrize("sizes", [[1, 2], [0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, -1, 1], [2**40] * 5])
def test_the_compiled_module_checks_its_own_sizes(sizes):
    with pytest.raises(ValueError, match="sizes"):
        _C.impulse_states_size("float64", sizes)


def test_the_compiled_module_checks_its_own_memory():
    A, B, C = matrices(1, 2, 1, 1)
    sizes = [2, 1, 2, 1, 1]
    states = torch.empty(_C.impulse_states_size("float64", sizes), dtype=F64)
    response = torch.empty(3, dtype=F64)
    with pytest.raises(ValueError, match="response: expected 2 elements, got 3"):
        _C.impulse_response("float64", sizes, *map(ops.buffer, (A, B, C, states, response)), 1)
