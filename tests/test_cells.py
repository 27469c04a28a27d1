import pytest
import torch
from networks import ACTIVATIONS, CELL_NAMES, DTYPES, normal, stack

from lsc_ext import _C, ops
from lsc_ext.cells import CELLS, Cell, layer_step
from lsc_ext.nn import flat_weights
from lsc_ext.testing import TOLERANCES, assert_close


def test_compiled_and_python_tables_name_the_same_cells():
    assert set(_C.cells()) == set(CELLS)


@pytest.mark.parametrize("name", CELL_NAMES)
def test_compiled_and_python_cells_have_the_same_blocks(name):
    compiled, cell = _C.cells()[name], CELLS[name]
    assert compiled["states"] == len(cell.states)
    assert compiled["input_blocks"] == cell.input_blocks
    assert compiled["recurrent_blocks"] == cell.recurrent_blocks
    assert compiled["unit_parameters"] == len(cell.unit_parameters)
    assert bool(compiled["derived"]) == (cell.derive is not None)


def test_a_cell_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="name: expected a cell name that is not taken, got 'gru'"):
        Cell("gru", ("h",), 1, 1, CELLS["gru"].step, "")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted({*CELL_NAMES, *ACTIVATIONS}))
def test_one_compiled_step_equals_the_torch_step(name, dtype):
    batch, inputs, hidden, n_states = 7, 5, 33, len(CELLS[name].states)
    model = stack(name, inputs, hidden, 1, dtype=dtype, gain=3)
    weights = flat_weights(model, 1)
    x, state = normal(1, batch, inputs, dtype=dtype), normal(1, n_states, batch, hidden, seed=2, dtype=dtype)
    compiled, _ = ops.recurrent(x, state, weights, name)
    wide = [w.double() if w.numel() else None for w in weights]
    expected = layer_step(CELLS[name], x[0].double(), torch.cat(tuple(state[0]), dim=-1).double(), *wide)
    actual = torch.cat(tuple(compiled[0, 1]), dim=-1)
    assert_close(name, actual, expected, TOLERANCES[dtype].forward)


@pytest.mark.parametrize("name", CELL_NAMES)
def test_a_step_without_biases_is_a_step_with_zero_biases(name):
    model = stack(name, 3, 4, 1)
    weight_ih, weight_hh, bias_ih, bias_hh, unit = (w if w.numel() else None for w in flat_weights(model, 1))
    x, state = normal(2, 3), normal(2, 4 * len(CELLS[name].states), seed=2)
    zeros = [None if b is None else torch.zeros_like(b) for b in (bias_ih, bias_hh)]
    without = layer_step(CELLS[name], x, state, weight_ih, weight_hh, None, None, unit)
    torch.testing.assert_close(layer_step(CELLS[name], x, state, weight_ih, weight_hh, *zeros, unit), without)


def min_gru_gates(model, x):
    update, candidate = torch.nn.functional.linear(x, model.weight_ih_l0, model.bias_ih_l0).chunk(2, dim=-1)
    return torch.sigmoid(update), candidate


def test_min_gru_trajectory_is_its_closed_form():
    model, x = stack("min_gru", 3, 9, 1, gain=3), normal(6, 4, 3)
    z, candidate = min_gru_gates(model, x)
    kept = torch.flip(torch.cumprod(torch.flip(1 - z[1:], (0,)), 0), (0,))  # product of 1 - z over the later steps
    kept = torch.cat((kept, torch.ones_like(kept[:1])))
    expected = (kept * z * candidate).sum(0)
    _, last = model(x)
    assert_close("last state", last[0], expected, TOLERANCES[torch.float64].forward)


def test_min_gru_step_jacobian_is_one_minus_the_update_gate():
    model, x = stack("min_gru", 3, 9, 1, gain=3), normal(2, 3)
    z, _ = min_gru_gates(model, x)
    weights = [model.weight_ih_l0, None, model.bias_ih_l0, None]
    for b in range(2):
        jacobian = torch.func.jacrev(lambda s, b=b: layer_step(CELLS["min_gru"], x[b], s, *weights))(normal(9))
        torch.testing.assert_close(jacobian, torch.diag(1 - z[b]))
