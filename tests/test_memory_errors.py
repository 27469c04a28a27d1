"""What lsc.memory refuses, and what it says."""

import math
import re

import pytest
import torch
from memory_inputs import polar

import lsc_ext as lsc
from lsc_ext import memory
from lsc_ext.memory import LogEigenvalue

ONE, SYSTEM = torch.ones(1), memory.DenseSystem(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: memory.state_second_moment(1.0, 0.0), "lam: expected moduli below 1, got 1"),
        (lambda: memory.state_second_moment(polar(1.1, 1.0), 0.0), "lam: expected moduli below 1"),
        (lambda: memory.state_second_moment(math.nan, 0.0), "lam: expected finite numbers"),
        (lambda: memory.state_second_moment(LogEigenvalue(-0.1), 0.0), "lam: expected moduli below 1"),
        (lambda: memory.state_second_moment(LogEigenvalue(math.nan), 0.0), "lam: expected a finite decay"),
        (lambda: memory.state_second_moment(0.5, 1.5), "rho: expected real numbers between -1 and 1, got 1.5"),
        (lambda: memory.state_second_moment(0.5, math.nan), "rho: expected finite numbers"),
        (lambda: memory.state_second_moment(0.5, []), "rho: expected at least one (weight, rho) pair"),
        (lambda: memory.state_second_moment(0.5, [(math.inf, 0.5)]), "rho: expected finite weights"),
        (lambda: memory.state_second_moment(0.5, 0.0, horizon=0), "horizon: expected at least 1, got 0"),
        (lambda: memory.sensitivity_cross_moment(0.5, 2.0, 0.0), "second: expected moduli below 1"),
        (lambda: LogEigenvalue.of_memory(1.0), "tau: expected more than 1 step"),
        (lambda: memory.Lags(torch.zeros(0)), "values: expected shape (L,)"),
        (lambda: memory.Lags(torch.tensor([math.nan])), "values: expected finite numbers"),
        (lambda: memory.input_normalization(0.5, "l3"), "normalization: expected one of None, 'l2', 'l1', got 'l3'"),
        (lambda: memory.eigenvalue("log", 0.5), "parametrization: expected one of polar, exp, optimal, s4"),
        (lambda: memory.eigenvalue("s4", -0.5), "step: expected a number for s4"),
        (lambda: memory.eigenvalue("exp", 0.5, step=0.1), "step: expected None for exp"),
        (lambda: memory.parameters_of("s4", 0.5, time_step=0.0), "time_step: expected more than 0"),
        (lambda: memory.sensitivity_matrix(0.0, 0.5), "lam: expected moduli above 0"),
        (lambda: memory.sensitivity_matrix(0.5, 0.5, normalization="step"), "normalization: expected one of"),
        (lambda: memory.unit_loss(0.5, 1.0), "teacher: expected moduli below 1"),
        (lambda: memory.unit_landscape("s4", 0.5, 0.0, 0.5), "parametrization: expected one of polar, exp, optimal"),
        (lambda: memory.gated_second_moments(-0.5, 0.0), "gate: expected real numbers in [0, 1)"),
        (lambda: memory.gated_second_moments(0.5j, 0.0), "gate: expected real numbers in [0, 1)"),
        (lambda: memory.autocorrelation(torch.zeros(3, 2), 4), "x: expected shape (T, ..) with at least 4 steps"),
        (lambda: memory.autocorrelation(torch.zeros(3), 2, per_feature=True), "x: expected shape"),
        (lambda: memory.autocorrelation(torch.full((3,), math.nan), 2), "x: expected finite numbers"),
        (lambda: memory.fit_exponentials(torch.ones(4), 2), "values: expected at least 5 lags for 2 terms, got 4"),
        (lambda: memory.fit_exponentials(torch.full((9,), math.inf)), "values: expected finite numbers"),
        (lambda: memory.diagonal_hessian(torch.ones(2) / 2, ONE, ONE), "B: expected shape (2,) or (2, I), got (1,)"),
        (lambda: memory.diagonal_hessian(torch.tensor(0.5), ONE, ONE), "lam: expected shape (n,), got ()"),
        (lambda: memory.dense_hessian(torch.ones(2, 3), ONE, ONE), "A: expected a real square matrix"),
        (lambda: memory.dense_hessian(torch.eye(1), ONE, ONE), "A: expected moduli below 1"),
        (lambda: memory.axis_alignment(torch.ones(2, 3)), "hessian: expected real shape (.., P, P)"),
        (lambda: memory.axis_alignment(-torch.eye(2)), "hessian: expected a diagonal of at least 0"),
        (lambda: memory.participation_ratio(torch.eye(2), 3), "count: expected 1 to 2, got 3"),
        (lambda: memory.DenseSystem(torch.ones(2, 3), ONE, ONE), "A: expected shape (n, n) or (K, m, m), got (2, 3)"),
        (lambda: memory.DenseSystem(torch.eye(2), ONE, ONE), "B: expected shape (2,) or (2, I), got (1,)"),
        (lambda: memory.DenseSystem(torch.eye(1), ONE, ONE, torch.ones(2, 1)), "D: expected shape (1, 1), got (2, 1)"),
        (lambda: memory.DenseSystem(torch.eye(1) * 1j, ONE, ONE), "A: expected a real tensor"),
        (lambda: memory.DiagonalSystem(ONE, ONE, torch.ones(2)), "C: expected shape (1,) or (O, 1), got (2,)"),
        (lambda: memory.system_of(lsc.nn.LRU(1, 1, 2)), "layer: expected num_layers == 1"),
        (lambda: memory.impulse_response(SYSTEM, 0), "steps: expected at least 1, got 0"),
        (
            lambda: memory.teacher_student_loss(SYSTEM, memory.DenseSystem(torch.zeros(1, 1), torch.ones(1, 2), ONE)),
            "teacher: expected (outputs, inputs) == (1, 1) as the student has, got (1, 2)",
        ),
        (
            lambda: memory.teacher_student_loss(SYSTEM, memory.DenseSystem(torch.ones(1, 1), ONE, ONE)),
            "expected a spectral radius below 1 without a horizon, got 1",
        ),
        (
            lambda: memory.teacher_student_loss(*[memory.DiagonalSystem(ONE, ONE, ONE)] * 2),
            "student: expected a spectral radius below 1",
        ),
    ],
)
def test_bad_values_are_refused(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: memory.state_second_moment("0.5", 0.0),
        lambda: memory.state_second_moment(True, 0.0),
        lambda: memory.state_second_moment(0.5, "white"),
        lambda: memory.state_second_moment(0.5, [0.5]),
        lambda: memory.state_second_moment(0.5, 0.0, horizon=2.0),
        lambda: memory.autocorrelation([1.0], 1),
        lambda: memory.autocorrelation(torch.ones(3) * 1j, 1),
        lambda: memory.fit_exponentials(torch.ones(3, 3)),
        lambda: memory.teacher_student_loss(SYSTEM, 0.5),
        lambda: memory.teacher_student_loss(torch.nn.GRU(1, 1), SYSTEM),
        lambda: memory.hessian(torch.nn.Linear(1, 1)),
    ],
)
def test_bad_types_are_refused(call):
    with pytest.raises(TypeError, match="expected"):
        call()
