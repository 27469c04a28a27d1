"""The raw compiled functions, which see addresses and counts alone: whatever comes, they refuse it or compute."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsc_ext import _C

CELLS = _C.cells()
HUGE = 2**62
T, B, I, H, L = 3, 2, 4, 5, 2


def address(array):
    return (array.ctypes.data, array.size)


class Problem:
    """Memory of the right sizes for one cell, and the arguments that describe it."""

    def __init__(self, cell="gru", sizes=(T, B, I, H, L), dtype="float64"):
        time, batch, inputs, hidden, layers = sizes
        shape, rng = CELLS[cell], np.random.default_rng(0)
        rows = (shape["input_blocks"] * hidden, shape["recurrent_blocks"] * hidden)
        self.x = rng.normal(size=(time, batch, inputs)).astype(dtype)
        self.states = np.zeros((layers, time + 1, shape["states"], batch, hidden), dtype)
        self.gates = np.zeros((layers, time, batch, shape["preactivations"], hidden), dtype)
        self.weights = [
            [
                rng.normal(size=(rows[0], inputs if k == 0 else hidden)).astype(dtype),
                rng.normal(size=(rows[1], hidden)).astype(dtype) if rows[1] else None,
                rng.normal(size=rows[0]).astype(dtype),
                rng.normal(size=rows[1]).astype(dtype) if rows[1] else None,
                rng.normal(size=(shape["unit_parameters"], hidden)).astype(dtype) if shape["unit_parameters"] else None,
            ]
            for k in range(layers)
        ]
        self.flowing, self.x_gradient = np.ones_like(self.states), np.full_like(self.x, np.nan)
        self.gradients = [[None if w is None else np.full_like(w, np.nan) for w in layer] for layer in self.weights]
        self.time, self.batch = np.array([0, 2]), np.array([1, 0])
        self.arguments = {
            "cell": cell,
            "dtype": dtype,
            "sizes": list(sizes),
            "x": address(self.x),
            "weights": layers_of(self.weights),
            "states": address(self.states),
            "gates": address(self.gates),
            "threads": 1,
        }

    def forward(self, **changes):
        _C.forward(**{**self.arguments, **changes})

    def backward(self, **changes):
        more = {
            "state_gradients": address(self.flowing),
            "x_gradient": address(self.x_gradient),
            "gradients": layers_of(self.gradients),
        }
        _C.backward(**{**self.arguments, **more, **changes})

    def operator(self, **changes):
        more = {"layer": 1, "direction": "time", "t": address(self.time), "b": address(self.batch), "count": 2}
        return _C.step_operator(**{**self.arguments, **more, **changes})


def layers_of(arrays):
    return [[None if w is None else address(w) for w in layer] for layer in arrays]


BAD_COMMON = {
    "unknown cell": ({"cell": "elman"}, ValueError, "cell"),
    "unknown dtype": ({"dtype": "float16"}, ValueError, "dtype"),
    "dtype of another type": ({"dtype": 64}, TypeError, "dtype"),
    "too few sizes": ({"sizes": [T, B, I, H]}, ValueError, "sizes"),
    "negative steps": ({"sizes": [-1, B, I, H, L]}, ValueError, "sizes"),
    "negative batch": ({"sizes": [T, -2, I, H, L]}, ValueError, "sizes"),
    "negative layers": ({"sizes": [T, B, I, H, -1]}, ValueError, "sizes"),
    "overflowing product": ({"sizes": [HUGE, HUGE, I, H, L]}, ValueError, "sizes"),
    "largest steps": ({"sizes": [2**63 - 1, B, I, H, L]}, ValueError, "sizes"),
    "overflowing rows": ({"sizes": [T, 0, I, HUGE, L]}, ValueError, "weight|states|sizes"),
    "sizes beyond 64 bits": ({"sizes": [2**70, B, I, H, L]}, TypeError, "sizes"),
    "a fractional size": ({"sizes": [1.5, B, I, H, L]}, TypeError, "sizes"),
    "another batch": ({"sizes": [T, B + 1, I, H, L]}, ValueError, "x"),
    "another width": ({"sizes": [T, B, I, H + 1, L]}, ValueError, "weight_ih"),
    "another depth": ({"sizes": [T, B, I, H, L + 1]}, ValueError, "weights"),
    "x without memory": ({"x": (0, T * B * I)}, ValueError, "x"),
    "x too small": ({"x": (1, 3)}, ValueError, "x"),
    "a negative count": ({"x": (1, -1)}, ValueError, "x"),
    "a negative address": ({"x": (-1, T * B * I)}, TypeError, "x"),
    "no states": ({"states": (0, 0)}, ValueError, "states"),
    "no gates": ({"gates": (1, 7)}, ValueError, "gates"),
    "layers missing": ({"weights": []}, ValueError, "weights"),
    "four buffers": ({"weights": [[None] * 4] * L}, ValueError, "weights"),
    "no weights": ({"weights": [[None] * 5] * L}, ValueError, "weights"),
    "no threads": ({"threads": 0}, ValueError, "threads"),
    "negative threads": ({"threads": -3}, ValueError, "threads"),
}


@pytest.mark.parametrize("function", ["forward", "backward", "operator"])
@pytest.mark.parametrize("case", BAD_COMMON)
def test_arguments_that_do_not_fit_are_refused_by_name(case, function):
    changes, error, named = BAD_COMMON[case]
    with pytest.raises(error, match=named):
        getattr(Problem(), function)(**changes)


BAD_BACKWARD = {
    "state_gradients": {"state_gradients": (1, 3)},
    "x_gradient": {"x_gradient": (0, T * B * I)},
    "gradients": {"gradients": [[None] * 5]},
}


@pytest.mark.parametrize("named", BAD_BACKWARD)
def test_gradient_memory_that_does_not_fit_is_refused_by_name(named):
    with pytest.raises(ValueError, match=named):
        Problem().backward(**BAD_BACKWARD[named])


BAD_OPERATOR = {
    "direction": ({"direction": "output"}, "direction: expected time, depth, diagonal or input, got 'output'"),
    "layer": ({"layer": L}, "layer: expected 0 .. 1, got 2"),
    "negative layer": ({"layer": -1}, "layer: expected 0 .. 1, got -1"),
    "lowest diagonal": ({"direction": "diagonal", "layer": 0}, "layer: expected 1 .. 1, got 0"),
    "negative count": ({"count": -1}, "t: "),
    "overflowing count": ({"count": HUGE}, "t: expected"),
    "points missing": ({"b": (1, 1)}, "b: expected 2 elements, got 1"),
}


@pytest.mark.parametrize("case", BAD_OPERATOR)
def test_operators_that_do_not_exist_are_refused(case):
    changes, message = BAD_OPERATOR[case]
    with pytest.raises(ValueError, match=message):
        Problem().operator(**changes)


@pytest.mark.parametrize(("t", "b"), [(T, 0), (-1, 0), (0, B), (0, -1), (2**62, 0)])
def test_points_outside_the_grid_are_refused(t, b):
    times, rows = np.array([0, t]), np.array([0, b])
    with pytest.raises(ValueError, match="points: expected 0 <= t < T and 0 <= b < B"):
        Problem().operator(t=address(times), b=address(rows))


def apply_arguments(count=2, size=H):
    v, out = np.ones((2, size)), np.empty((2, size))
    held = (v, out)
    return held, {
        "transpose": False,
        "indices": None,
        "count": count,
        "v": address(v),
        "out": address(out),
        "threads": 1,
    }


BAD_PRODUCTS = {
    "count": ({"count": -1}, "count"),
    "huge count": ({"count": HUGE}, "v|count"),
    "v": ({"v": (1, 3)}, "v"),
    "out": ({"out": (0, 2 * H)}, "out"),
    "threads": ({"threads": 0}, "threads"),
    "indices": ({"indices": (1, 5)}, "indices"),
}


@pytest.mark.parametrize("case", BAD_PRODUCTS)
def test_products_refuse_what_does_not_fit(case):
    changes, named = BAD_PRODUCTS[case]
    problem = Problem()
    problem.forward()
    held, arguments = apply_arguments()
    with pytest.raises(ValueError, match=named):
        problem.operator().apply(**{**arguments, **changes})
    assert len(held) == 2


@pytest.mark.parametrize("index", [-1, 2, 2**62])
def test_products_refuse_points_that_the_operator_has_not(index):
    indices = np.array([0, index])
    held, arguments = apply_arguments()
    with pytest.raises(ValueError, match="indices: expected 0 .. 1, got"):
        Problem().operator().apply(**{**arguments, "indices": address(indices)})
    assert len(held) == 2


def result_buffers(count):
    arrays = [
        np.empty(size, dtype)
        for size, dtype in (
            (count, "f8"),
            (2 * count, "f8"),
            (count, "f8"),
            (count, "f8"),
            (count, "i4"),
            (count, "u1"),
        )
    ]
    return arrays, _C.ResultBuffers(*(address(a) for a in arrays), None)


def radii_arguments(count=2):
    arrays, out = result_buffers(count)
    return arrays, {
        "tol": 1e-3,
        "max_matvecs": 100,
        "seed": 0,
        "indices": None,
        "count": count,
        "targets": None,
        "transposed": False,
        "out": out,
        "threads": 1,
    }


BAD_RADII = {
    "count": ({"count": 3}, ValueError, "indices|radius"),
    "negative count": ({"count": -1}, ValueError, "radius|count"),
    "huge count": ({"count": HUGE}, ValueError, "radius|count|indices"),
    "targets": ({"targets": (1, 1)}, ValueError, "targets"),
    "threads": ({"threads": 0}, ValueError, "threads"),
    "seed": ({"seed": -1}, TypeError, "seed"),
}


@pytest.mark.parametrize("case", BAD_RADII)
def test_radii_refuse_what_does_not_fit(case):
    changes, error, named = BAD_RADII[case]
    held, arguments = radii_arguments()
    with pytest.raises(error, match=named):
        Problem().operator().radii(**{**arguments, **changes})
    assert held


def test_radii_refuse_jacobians_that_are_not_square():
    matrices = np.ones((2, 3, 4))
    operator = _C.matrix_operator("float64", 2, 3, 4, address(matrices))
    held, arguments = radii_arguments()
    with pytest.raises(ValueError, match="operator: expected square Jacobians, got 3 x 4"):
        operator.radii(**arguments)
    assert held


@pytest.mark.parametrize("shape", [(-1, 3, 3), (2, -3, -3), (HUGE, 3, 3), (2, HUGE, HUGE), (2, 3, 4)])
def test_matrices_that_do_not_fit_are_refused(shape):
    matrices = np.ones((2, 3, 3))
    with pytest.raises(ValueError, match="matrices"):
        _C.matrix_operator("float64", *shape, address(matrices))


def test_callbacks_of_another_type_are_refused():
    with pytest.raises(TypeError):
        _C.callback_operator("float64", 0, 0, (0, 0), (0, 0), (0, 0), None)


def test_gradients_of_too_many_pairs_are_refused():
    problem, index = Problem(), np.array([0, 1])
    problem.forward()
    u = np.ones((2, H))
    with pytest.raises(ValueError, match="u: expected"):
        problem.operator().bilinear_gradient(
            address(index), 2, (1, 1), address(u), [None] * 5, [], None, None, None, None, 1
        )


SMALL = st.integers(0, 7)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    cell=st.sampled_from(sorted(CELLS)),
    sizes=st.tuples(SMALL, SMALL, SMALL, SMALL, st.integers(0, 3)),
    dtype=st.sampled_from(["float32", "float64"]),
    threads=st.integers(1, 4),
)
def test_any_sizes_run_or_are_refused(cell, sizes, dtype, threads):
    problem = Problem(cell, sizes, dtype)
    try:
        problem.forward(threads=threads)
        problem.backward(threads=threads)
    except ValueError as error:
        assert "expected" in str(error)  # noqa: PT017
        return
    assert np.isfinite(problem.states).all()
    gradients = (problem.x_gradient, *(g for layer in problem.gradients for g in layer if g is not None))
    assert all(np.isfinite(g).all() for g in gradients)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    right=st.tuples(SMALL, SMALL, SMALL, SMALL, st.integers(0, 3)),
    claimed=st.tuples(*(st.integers(-3, 12) | st.sampled_from([2**31, HUGE, 2**63 - 1]) for _ in range(5))),
)
def test_claimed_sizes_that_differ_from_the_memory_never_run_past_it(right, claimed):
    problem = Problem("lstm", right)
    try:
        problem.forward(sizes=list(claimed))
    except ValueError as error:
        assert "expected" in str(error)  # noqa: PT017
        return
    assert np.prod((claimed[0] + 1, claimed[1], claimed[3], claimed[4])) * 2 == problem.states.size


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    cell=st.sampled_from(sorted(CELLS)),
    direction=st.sampled_from(["time", "depth", "diagonal", "input"]),
    layer=st.integers(-1, 3),
    points=st.lists(st.tuples(st.integers(-1, T), st.integers(-1, B)), max_size=6),
)
def test_any_points_make_an_operator_or_are_refused(cell, direction, layer, points):
    problem = Problem(cell)
    problem.forward()
    times, rows = (np.array([p[i] for p in points], dtype=np.int64) for i in range(2))
    try:
        operator = problem.operator(
            direction=direction, layer=layer, t=address(times), b=address(rows), count=len(points)
        )
    except ValueError as error:
        assert str(error).startswith(("layer: expected", "points: expected"))  # noqa: PT017
        return
    v, out = np.ones((len(points), operator.columns)), np.full((len(points), operator.rows), np.nan)
    operator.apply(False, None, len(points), address(v), address(out), 2)
    assert np.isfinite(out).all()


class Flat:
    """Arguments of the two calls that take all memory in one list."""

    def __init__(self, cell="lstm", sizes=(T, B, I, H, L)):
        problem, (time, batch, _, hidden, layers) = Problem(cell, sizes), sizes
        states = CELLS[cell]["states"]
        output = np.full((time, batch, hidden), np.nan)
        last = [np.full((layers, batch, hidden), np.nan) for _ in range(states)]
        self.held = (problem, output, last)
        self.output, self.last = output, last
        weights = [w for layer in problem.weights for w in layer]
        self.forward_list = self.flat(problem.x, *weights, problem.states, problem.gates, output, *last)
        found = [w for layer in problem.gradients for w in layer]
        self.backward_list = self.flat(
            problem.x,
            *weights,
            problem.states,
            problem.gates,
            output,
            *last,
            problem.x_gradient,
            *found,
            *[None] * states,
        )
        self.call = {"cell": cell, "dtype": "float64", "sizes": list(sizes), "threads": 1}

    @staticmethod
    def flat(*arrays):
        return [n for a in arrays for n in ((0, 0) if a is None else address(a))]


@pytest.mark.parametrize("function", ["forward_from_zero", "backward_from_ends"])
def test_one_list_of_memory_that_does_not_fit_is_refused(function):
    flat = Flat()
    numbers = flat.forward_list if function == "forward_from_zero" else flat.backward_list
    call = getattr(_C, function)
    _C.forward_from_zero(**flat.call, memory=flat.forward_list)
    assert not np.isnan(flat.output).any()
    call(**flat.call, memory=numbers)
    with pytest.raises(ValueError, match="memory: expected"):
        call(**flat.call, memory=numbers[:-2])
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        call(**{**flat.call, "threads": 0}, memory=numbers)
    with pytest.raises(ValueError, match="weights: expected weight_ih"):
        call(**flat.call, memory=[*numbers[:2], 0, 0, *numbers[4:]])
    present = [i for i in range(0, len(numbers), 2) if numbers[i + 1] > 0]
    for place in present:
        for wrong in (numbers[place + 1] + 1, 1, -5):
            changed = list(numbers)
            changed[place + 1] = wrong
            with pytest.raises(ValueError, match=r"expected \d+ elements, got"):
                call(**flat.call, memory=changed)
        changed = list(numbers)
        changed[place] = 0
        with pytest.raises(ValueError, match="expected memory, got null"):
            call(**flat.call, memory=changed)
