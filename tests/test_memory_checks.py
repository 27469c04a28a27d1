"""Values of Zucchet and Orvieto, arXiv 2405.21064, and of closed forms that correct them, to the digits they have.

Each table was computed by a second derivation in another language of formulas; where the paper's notebooks differ from
it, the test says how.
"""

import cmath
import math

import pytest
import torch
from torch import Tensor

import lsc_ext as lsc
from lsc_ext import memory

F64, C128 = torch.float64, torch.complex128
RHOS = torch.tensor([0.0, 0.5, 0.9, 0.99, 1.0], dtype=F64)
DIGITS = 6e-10  # of ten printed ones


def polar(modulus: float, phase: float) -> complex:
    return cmath.rect(modulus, phase)


def vector(*numbers: float | complex) -> Tensor:
    return torch.tensor(numbers, dtype=C128 if any(isinstance(z, complex) for z in numbers) else F64)


# One unit


@pytest.mark.parametrize(
    ("lam", "states", "sensitivities"),
    [
        (
            0.5,
            [1.3333333333, 2.2222222222, 3.5151515152, 3.9471947195, 4],
            [2.9629629630, 6.5185185185, 13.1007040098, 15.6728280089, 16],
        ),
        (
            0.9,
            [5.2631578947, 13.8755980861, 50.1385041551, 91.3085465958, 100],
            [263.8868639743, 778.1174279074, 3756.953982858, 8732.848868105, 1e4],
        ),
        (
            0.99,
            [50.2512562814, 148.7636200806, 871.7901433774, 5000.126259438, 1e4],
            [251262.6261024, 753639.5961649, 4737807.221287, 37500631.3211, 1e8],
        ),
        (
            0.999,
            [500.2501250625, 1498.751373689, 9415.510530290, 90537.07927668, 1e6],
            [250125125.1251, 750373877.1221, 4751957237.441, 49366907203.68, 1e12],
        ),
        (0.0, [1] * 5, [1] * 5),
        (
            polar(0.9, math.pi / 4),
            [5.2631578947, 7.4144842383, 3.5449393515, 2.0322271854, 1.8614770884],
            [263.8868640, 367.8844958, 100.4563082, 12.93465860, 3.465096951],
        ),
        (
            polar(0.99, math.pi / 4),
            [50.25125628, 69.61318900, 19.40317413, 3.446497497, 1.724052997],
            [251262.6261, 347151.9507, 88908.95449, 8627.469381, 2.972358736],
        ),
        (
            polar(0.99, math.pi / 100),
            [50.25125628, 148.4792053, 811.7153233, 1452.484475, 928.4960754],
            [251262.6261, 752156.5155, 4362562.571, 5740647.264, 862104.9620],
        ),
        (
            polar(0.9, 0.1),
            [5.2631578947, 13.67237679, 40.95647883, 52.19682913, 52.65235585],
            [263.8868640, 763.9426421, 2692.867505, 2950.653968, 2772.270576],
        ),
    ],
)
def test_moments_of_states_and_sensitivities(lam, states, sensitivities):
    assert memory.state_second_moment(lam, RHOS).tolist() == pytest.approx(states, rel=DIGITS)
    assert memory.sensitivity_second_moment(lam, RHOS).tolist() == pytest.approx(sensitivities, rel=DIGITS)


@pytest.mark.parametrize("lam", [0.5, 0.9, 0.99, 0.999])
def test_a_constant_input_gives_powers_of_the_memory(lam):
    tau = 1 / (1 - lam)
    assert float(memory.state_second_moment(lam, 1.0)) == pytest.approx(tau**2, rel=1e-12)
    assert float(memory.sensitivity_second_moment(lam, 1.0)) == pytest.approx(tau**4, rel=1e-12)


@pytest.mark.parametrize(
    ("lam", "rho", "horizon", "state", "sensitivity"),
    [
        (0.9, 0.0, 10, 4.623280765, 85.45171808),
        (0.9, 0.5, 50, 13.87510880, 776.3779035),
        (0.99, 0.9, 300, 869.2521939, 4425017.297),
        (0.99, 0.0, 300, 50.13040154, 235916.7036),
        (0.99, 0.0, 512, 50.24955182, 250710.5114),
        (0.999, 0.0, 300, 225.7894410, 5764415.124),
        (1.0, 0.0, 100, 100, 328350),
        (1.0, 1.0, 100, 10_000, 24502500),
    ],
)
def test_moments_after_a_number_of_steps(lam, rho, horizon, state, sensitivity):
    assert float(memory.state_second_moment(lam, rho, horizon=horizon)) == pytest.approx(state, rel=DIGITS)
    assert float(memory.sensitivity_second_moment(lam, rho, horizon=horizon)) == pytest.approx(sensitivity, rel=DIGITS)


def sensitivities(lam: float, normalization: str | None, parametrization: str = "polar") -> list[float]:
    found = memory.sensitivity_matrix(lam, 0.0, parametrization=parametrization, normalization=normalization)
    return found.diagonal().tolist()


@pytest.mark.parametrize(
    ("teacher", "plain", "normalized", "exponential"),
    [
        (0.36, (1.7130421, 0.22201026), (1.3199645, 0.19323773), 0.17855523),
        (0.68, (9.4121404, 4.3521737), (3.4600429, 2.3397286), 0.23796555),
        (0.84, (66.844206, 47.165272), (11.537837, 13.885456), 0.24748207),
        (0.92, (509.50933, 431.2487), (42.385525, 66.2398), 0.24942143),
        (0.96, (3987.6295, 3674.9994), (162.69263, 288.11995), 0.24986118),
        (0.98, (31568.877, 30318.75), (637.69003, 1200.6225), 0.24996599),
        (0.99, (251262.63, 246262.5), (2525.1888, 4900.6237), 0.24999158),
    ],
)
def test_curvature_where_a_unit_has_learned_its_teacher(teacher, plain, normalized, exponential):
    assert sensitivities(teacher, None) == pytest.approx(plain, rel=5e-8)
    assert sensitivities(teacher, "l2") == pytest.approx(normalized, rel=5e-8)
    assert sensitivities(teacher, "l2", "exp")[0] == pytest.approx(exponential, rel=5e-8)
    assert sensitivities(teacher, "l2", "optimal") == pytest.approx([1, 1], rel=1e-12)


@pytest.mark.parametrize(
    ("lam", "rho", "figures"),
    [
        (0.99, 0.0, (1, 5000.1263, 0.49500833, 2525.1888, 0.24999158, 1)),
        (0.99, 0.9, (17.348624, 94282.364, 9.3338754, 43808.55, 4.3370099, 17.348624)),
        (0.99, 1.0, (199, 1.99e6, 197.00834, 502512.56, 49.748325, 199)),
        (0.9999, 0.99, (197.03941, 9.9490342e9, 99.480393, 4.9264779e9, 49.259852, 197.03941)),
    ],
)
def test_moments_of_normalized_states(lam, rho, figures):
    def modulus(parametrization, learned):
        options = {"parametrization": parametrization, "normalization": "l2", "learned": learned}
        return float(memory.sensitivity_matrix(lam, rho, **options)[0, 0])

    state = float(memory.input_normalization(lam) ** 2 * memory.state_second_moment(lam, rho))
    found = (state, modulus("polar", True), modulus("exp", True))
    found += (modulus("polar", False), modulus("exp", False), modulus("optimal", False))
    assert found == pytest.approx(figures, rel=5e-8)


@pytest.mark.parametrize(
    ("teacher", "at_zero", "opposite"),
    [
        (0.36, (0.0744485, 0.0670477), (0.2636279, 0.2294618)),
        (0.84, (1.1983696, 0.4574136), (2.8104352, 0.8273921)),
        (0.99, (24.6256281, 0.8589326), (49.7462313, 0.9899500)),
    ],
)
def test_losses_of_a_unit_away_from_its_teacher(teacher, at_zero, opposite):
    for normalization, zero, half_turn in zip((None, "l2"), at_zero, opposite, strict=True):
        assert float(memory.unit_loss(0.0, teacher, normalization=normalization)) == pytest.approx(zero, abs=6e-8)
        found = memory.unit_loss(polar(teacher, math.pi), teacher, normalization=normalization)
        assert float(found) == pytest.approx(half_turn, abs=6e-8)


def test_losses_of_the_optimal_parametrization_depend_on_the_distance_alone():
    found = memory.unit_landscape("optimal", 1.3, 0.0, math.tanh(0.4))
    assert float(found.loss) == pytest.approx(1 - 1 / math.cosh(0.9), rel=1e-12)
    assert float(found.loss) == pytest.approx(0.3022053589, abs=6e-11)


def test_the_loss_that_learning_the_angle_starts_from():
    loss = memory.unit_loss(polar(0.99, math.pi / 4), polar(0.99, math.pi / 100))
    assert float(loss) == pytest.approx(49.7142, abs=5e-5)


@pytest.mark.parametrize(("parametrization", "figure"), [("optimal", 9.87), ("exp", 47.7), ("polar", 4.84e4)])
def test_curvature_of_the_angle_as_the_figure_plots_it(parametrization, figure):
    teacher = polar(0.99, math.pi / 100)
    w, v = memory.parameters_of(parametrization, teacher)
    found = memory.unit_landscape(parametrization, w, v, teacher)
    assert float(found.loss) == pytest.approx(0, abs=1e-20)
    assert math.pi**2 * float(found.phase) == pytest.approx(figure, rel=2e-3)  # its axis is v / pi


def test_the_optimal_angle_has_many_solutions_for_a_short_memory():
    w, v = memory.parameters_of("optimal", polar(0.99, math.pi / 100))
    assert float(v) / math.pi == pytest.approx(0.700, abs=5e-4)
    assert float(memory.parameters_of("exp", polar(0.99, math.pi / 100))[1]) / math.pi == pytest.approx(
        -1.1015, abs=5e-5
    )
    w, v = memory.parameters_of("optimal", polar(0.36, math.pi / 100))
    period = 2 * 0.36 * math.sqrt(1 + 0.36**2) / (1 - 0.36**2)
    assert period == pytest.approx(0.879, abs=5e-4)
    again = memory.unit_landscape("optimal", w, v + math.pi * period, polar(0.36, math.pi / 100))
    assert float(again.loss) == pytest.approx(0, abs=1e-20)


# Two eigenvalues

LAM0 = polar(0.99, math.pi / 4)


@pytest.mark.parametrize(
    ("lam", "rho", "figure", "tolerance"),
    [
        (LAM0.conjugate(), 0.0, 251262.63, 3e-8),
        (LAM0.conjugate(), 0.9, 88908.954, 1e-8),
        (LAM0.conjugate(), 0.99, 8627.4694, 1e-8),
        (LAM0.conjugate(), 0.999, 861.66477, 1e-8),
        (LAM0.conjugate(), 1.0, 2.9723587, 2e-8),
        (0.99, 0.0, -3.1900137 - 2.7333836j, 2e-8),
        (0.99, 0.9, -111.48522 + 66.061731j, 5e-8),
        (0.99, 0.99, -3048.3945 + 3047.9887j, 2e-8),
        (0.99, 0.999, -9861.0317 + 10301.558j, 4e-8),
        (0.99, 1.0, -11891.558 + 12483.057j, 5e-8),
        (0.0, 0.0, 1, 1e-14),
        (0.0, 0.9, -0.91263343 + 1.6359588j, 3e-8),
        (0.0, 1.0, -1.1891558 + 1.2483057j, 4e-8),
        (polar(0.9, -math.pi / 4), 0.0, 1460.199, 4e-7),
        (polar(0.9, -math.pi / 4), 0.9, 521.10149 + 60.155944j, 2e-8),
        (polar(0.9, -math.pi / 4), 0.99, 53.418507 + 6.6216384j, 2e-8),
    ],
)
def test_coupling_of_two_eigenvalues(lam, rho, figure, tolerance):
    found = complex(memory.sensitivity_cross_moment(lam, LAM0, rho))
    assert abs(found - figure) < tolerance * abs(figure)


def of_the_notebook(x: complex, y: complex, rho: float) -> complex:
    """S as the paper's notebook on this figure has it."""
    p = x * y
    top = (1 - rho) * (1 + p) + rho**2 * (1 - p) ** 3
    top -= rho * (1 - rho) * p * (2 * x + 2 * y - rho * p * (1 + p))
    return top / ((1 - rho * x) ** 2 * (1 - rho * y) ** 2 * (1 - p) ** 3)


def test_the_notebooks_coupling_holds_for_white_and_constant_inputs_only():
    x, y = polar(0.9, 0.3), polar(0.8, -0.2)
    for rho in (0.0, 1.0):
        found = complex(memory.sensitivity_cross_moment(x, y, rho))
        assert abs(of_the_notebook(x, y, rho) - found) < 1e-10 * abs(found)
    found = complex(memory.sensitivity_cross_moment(x, y, 0.6))
    assert abs(found - (139.27512135 + 167.43594316j)) < 1e-9 * abs(found)
    assert abs(of_the_notebook(x, y, 0.6) - (88.8 + 105.1j)) < 0.1
    for rho, theirs in ((0.9, 46795.5), (0.99, 4336.9), (0.999, 432.53)):
        at_peak = abs(of_the_notebook(LAM0.conjugate(), LAM0, rho))
        assert at_peak == pytest.approx(theirs, rel=2e-5)
        assert at_peak / float(memory.sensitivity_second_moment(LAM0, rho)) == pytest.approx(0.51, abs=0.02)
    general = complex(memory.sensitivity_cross_moment(polar(0.8, 0.5), polar(0.7, -0.3), 0.6))
    assert abs(general - (23.850304262 + 30.484550674j)) < 1e-10 * abs(general)


# Hessians


@pytest.mark.parametrize(
    ("rho", "eigenvalues"),
    [
        (0.0, [266.192913076, 261.580915846, 0.795886984, 0.785802166]),
        (0.5, [540.198907192, 525.196625708, 0.366951550, 0.363113436]),
        (0.9, [268.231487636, 233.875519142, 0.067422206, 0.060387086]),
        (0.99, [61.407471933, 23.945963684, 0.009089535, 0.005776877]),
    ],
)
def test_hessian_of_two_diagonal_units(rho, eigenvalues):
    lam = vector(polar(0.9, 0.5), polar(0.8, 2.0))
    found = memory.diagonal_hessian(lam, vector(1, 0.5 + 0.5j), vector(1 - 1j, 0.3), rho)
    assert torch.linalg.eigvalsh(found).flip(0).tolist() == pytest.approx(eigenvalues, rel=1e-9, abs=6e-10)
    if rho == 0:
        rows = [
            [264.015928721, -0.064320988, -2.302395631, 0.072817935],
            [-0.064320988, 0.795922805, -0.114287595, 0.000559371],
            [-2.302395631, -0.114287595, 263.757799228, -0.063328910],
            [0.072817935, 0.000559371, -0.063328910, 0.785867318],
        ]
        torch.testing.assert_close(found, torch.tensor(rows, dtype=F64), rtol=0, atol=6e-10)
    if rho == 0.9:
        diagonal = [236.254499173, 0.060662081, 265.851590391, 0.068064425]
        assert found.diagonal().tolist() == pytest.approx(diagonal, abs=6e-10)
        assert float(found[0, 2]) == pytest.approx(-8.721948612, abs=6e-10)


A3 = torch.tensor([[0.6, -0.5, 0.1], [0.4, 0.5, -0.2], [0.1, 0.2, 0.7]], dtype=F64)
B3, C3 = vector(1, 0.5, -0.5), vector(0.3, -0.2, 1)


@pytest.mark.parametrize(
    ("rho", "trace", "dense", "diagonal_trace", "diagonal"),
    [
        (
            0.0,
            10.26885165,
            [8.1697595, 1.9551327, 0.10558455, 0.030550062, 0.007824838],
            0.4801915269,
            [0.22227803, 0.15571592, 0.10219757],
        ),
        (
            0.9,
            41.21223291,
            [39.479558, 1.5924481, 0.11498547, 0.0196821, 0.00555884],
            1.818030801,
            [1.6605486, 0.10347189, 0.054010328],
        ),
    ],
)
def test_hessian_of_a_dense_recurrence_and_of_the_same_one_diagonalised(rho, trace, dense, diagonal_trace, diagonal):
    found = memory.dense_hessian(A3, B3, C3, rho)
    values = torch.linalg.eigvalsh(found).flip(0)
    assert float(found.trace()) == pytest.approx(trace, rel=1e-9)
    assert values[:5].tolist() == pytest.approx(dense, rel=2e-7)
    assert float(values[5:].abs().max()) < 1e-12
    lam, P = torch.linalg.eig(A3)
    found = memory.diagonal_hessian(lam, torch.linalg.solve(P, B3.to(P)), C3.to(P) @ P, rho)
    assert float(found.trace()) == pytest.approx(diagonal_trace, rel=1e-9)
    assert torch.linalg.eigvalsh(found).flip(0)[:3].tolist() == pytest.approx(diagonal, rel=1e-7)


A4 = torch.tensor(
    [
        [-1.4247412550487388, -1.5329170486627643, -0.3887158145195779, 1.2379928998062293],
        [0.007940461682874378, -0.6328705387122633, 0.7550464504272068, 0.9610731194628643],
        [0.11484895897874497, 0.7160967315683565, -0.048685822854779626, 0.840569175749642],
        [-0.3267346495877476, -1.1527603743610932, -0.2170820540503687, 0.026568562697580567],
    ],
    dtype=F64,
)
B4 = vector(0.6721794544389568, -2.635084189677658, 1.642194415740619, 0.619311244075578)
C4 = vector(0.6827156955186438, -0.4191951593030349, 0.2536809405968809, 0.6006502489021232)
D4 = torch.tensor(-1.775317998295996, dtype=F64)


def modes_of(A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, and what each passes from input to output."""
    lam, P = torch.linalg.eig(A)
    return lam, torch.linalg.solve(P, B.to(P)) * (C.to(P) @ P)


def lru_of(lam: Tensor, passed: Tensor, D: float) -> lsc.nn.LRU:
    """Input and output weights of one size, states normalised."""
    model, root = lsc.nn.LRU(1, 1, state_size=len(lam), dtype=F64), passed.sqrt()
    gamma = memory.input_normalization(lam)
    w, v = memory.parameters_of("exp", lam)
    values = {"nu_log": w, "theta_log": v, "gamma_log": gamma.log(), "D": torch.full((1,), D, dtype=F64)}
    values["B"] = torch.view_as_real(root / gamma).mT.unsqueeze(2)
    values["C"] = torch.view_as_real(root).mT.unsqueeze(1)
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(f"{name}_l0").copy_(value)
    return model


def test_the_hessian_of_the_papers_dense_network():
    system = memory.DenseSystem(A4, B4, C4, D4)
    found = memory.hessian(system, horizon=300)
    values = torch.linalg.eigvalsh(found).flip(0)
    assert float(found.trace()) == pytest.approx(12427581.54, rel=1e-6)
    assert float(found.norm()) == pytest.approx(6965221.065, rel=1e-6)
    figures = [5738842.1, 3152907.8, 1911917.4, 1388912.6, 233796.47, 941.87399, 195.27819, 67.133561, 0.8300998]
    assert values[:9].tolist() == pytest.approx(figures, rel=1e-6)
    assert float(values[9:].abs().max()) < 1e-6
    entries = [found[0, 0], found[16, 16], found[20, 20], found[24, 24], found[0, 16]]
    figures = [1249953.411, 39.61891874, 1010.75618, 1, 1525.601169]
    assert [float(z) for z in entries] == pytest.approx(figures, rel=1e-6)
    ones = torch.full((25,), 0.2, dtype=F64)
    assert float(ones @ found @ ones) == pytest.approx(267581.7999, rel=1e-6)
    product = [-101711.36620, 53082.77122, 75668.69375, -51286.01986]
    assert (found @ ones)[:4].tolist() == pytest.approx(product, rel=1e-6)
    for _ in range(50):
        ones = found @ ones
        ones = ones / ones.norm()
    assert float(ones @ found @ ones) == pytest.approx(5738842.084, rel=1e-6)


def test_the_same_network_as_a_layer_has_the_same_hessian():
    model = lsc.nn.BlockDiagonalRNN(1, 1, state_size=4, dtype=F64)
    with torch.no_grad():
        for name, value in (("A", A4), ("B", B4), ("C", C4), ("D", D4)):
            parameter = model.get_parameter(f"{name}_l0")
            parameter.copy_(value.view(parameter.shape))
    expected = memory.hessian(memory.DenseSystem(A4, B4, C4, D4), horizon=300)
    torch.testing.assert_close(memory.hessian(model, horizon=300), expected, rtol=1e-10, atol=0)


def test_the_hessian_of_the_papers_diagonal_network():
    lam, passed = modes_of(A4, B4, C4)
    assert torch.sort(lam.abs()).values.tolist() == pytest.approx([0.99093949] * 2 + [0.99201884] * 2, abs=6e-9)
    root = passed.sqrt()
    found = memory.hessian(memory.DiagonalSystem(lam, root, root, D4), horizon=300)
    assert float(found.trace()) == pytest.approx(4057770.756, rel=1e-6)
    values = torch.linalg.eigvalsh(found).flip(0)
    figures = [1472963.2, 1228426.5, 677985.67, 677982.87, 203.99493, 91.341112, 87.041234, 29.343208, 0.83018012]
    assert values[:9].tolist() == pytest.approx(figures, rel=1e-6)
    assert float(values[9:].abs().max()) < 1e-6


def test_the_hessian_of_the_papers_lru():
    found = memory.hessian(lru_of(*modes_of(A4, B4, C4), float(D4)), horizon=300)
    assert found.shape == (29, 29)
    assert float(found.trace()) == pytest.approx(20111192.84, rel=1e-6)
    values = torch.linalg.eigvalsh(found).flip(0)
    figures = [11998037, 8112287, 360.35159, 322.1974, 103.17773, 44.307593, 24.106061, 13.550809, 0.82800766]
    assert values[:9].tolist() == pytest.approx(figures, rel=1e-6)
    assert float(values[9:].abs().max()) < 1e-5
    phases = found[4:8, 4:8]
    assert float(torch.linalg.eigvalsh(phases)[-2]) > 8e6  # the two large ones are those of the phases


def test_hessians_of_a_network_made_of_sines():
    i = torch.arange(1, 5, dtype=F64)
    P = torch.eye(4, dtype=F64) + 0.5 * torch.sin(i.unsqueeze(1) + 2 * i)
    turns = [
        r * torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]], dtype=F64)
        for r, t in ((0.99, 0.5), (0.993, 2.0))
    ]
    A = P @ torch.block_diag(*turns) @ torch.linalg.inv(P)
    B, C = torch.cos(i), 0.5 * torch.sin(2 * i + 1)
    system = memory.DenseSystem(A, B, C, torch.tensor(0.5))
    response = memory.impulse_response(system, 300).flatten()
    assert response[:4].tolist() == pytest.approx([0.2777551736, 0.0394797798, -0.0435949840, -0.5044037975], abs=6e-11)
    weights = 1 - torch.arange(300) / 300
    assert float(response.square().sum()) == pytest.approx(4.200865425767886, rel=1e-12)
    assert float((weights * response.square()).sum()) == pytest.approx(3.375003793449602, rel=1e-7)
    silent = memory.DenseSystem(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1))
    loss = memory.teacher_student_loss(system, silent, horizon=300)
    assert float(loss) == pytest.approx(3.375003793449602 / 2, rel=1e-12)
    lam, passed = modes_of(A, B, C)
    dense = [26842.4, 13144.5, 7320.05, 2819.04, 66.4099, 26.6013, 14.5711, 6.75386, 0.815341]
    diagonal = [4565.69, 4565.64, 2292.57, 2292.53, 6.99194, 6.57703, 5.64377, 5.07156, 0.809336]
    lru = [50217.8, 37762.5, 8.55041, 6.43844, 3.35098, 2.94036, 0.837977, 0.104544, 0.0968709]
    root = passed.sqrt()
    networks = (system, memory.DiagonalSystem(lam, root, root, torch.tensor(0.5)), lru_of(lam, passed, 0.5))
    for network, figures in zip(networks, (dense, diagonal, lru), strict=True):
        found = memory.hessian(network, horizon=300)
        assert torch.linalg.eigvalsh(found).flip(0)[:9].tolist() == pytest.approx(figures, rel=6e-6)
    assert float(memory.hessian(system, horizon=300).trace()) == pytest.approx(50241.165, rel=1e-7)


@pytest.mark.parametrize(
    ("rho", "spread", "top", "participation", "alignment"),
    [
        (0.99, math.pi / 100, 8.44, 3.4, 7.9),
        (0.99, math.pi / 10, 7.08, 1.6, 2.2),
        (0.99, math.pi, 5.09, 1.3, 1.18),
        (0.0, math.pi / 100, 6.44, 3.9, 7.2),
        (0.0, math.pi / 10, 6.21, 1.5, 2.2),
        (0.0, math.pi, 6.13, 1.4, 1.18),
    ],
)
def test_small_angles_turn_the_hessian_away_from_the_axes(rho, spread, top, participation, alignment):
    found = []
    for _ in range(100):
        modulus = (torch.rand(10, dtype=F64) * (0.995**2 - 0.99**2) + 0.99**2).sqrt()
        lam = torch.polar(modulus, spread * (2 * torch.rand(10, dtype=F64) - 1))
        H = memory.diagonal_hessian(lam, torch.randn(10, dtype=C128), torch.randn(10, dtype=C128), rho)
        found.append([torch.linalg.eigvalsh(H)[-1].log10(), memory.participation_ratio(H)[0], memory.axis_alignment(H)])
    medians = torch.tensor(found).median(0).values.tolist()
    # Of other draws: at pi / 10 medians of 1,200 draws are 6.95 and 6.14, their participations 1.68 and 1.73.
    assert medians[0] == pytest.approx(top, abs=0.2)
    assert medians[1:] == pytest.approx([participation, alignment], rel=0.25)


@pytest.mark.parametrize(("modulus", "rho"), [(0.36, 0.0), (0.9, 0.0), (0.99, 0.0), (0.99, 0.9)])
def test_no_diagonal_preconditioner_mends_a_dense_recurrence(modulus, rho):
    ratios = []
    for _ in range(9):
        values, vectors = torch.linalg.eig(torch.randn(10, 10, dtype=F64) / math.sqrt(10))
        lam = torch.polar(modulus + (1 - modulus) * values.abs().tanh(), values.angle())
        A = torch.linalg.solve(vectors, vectors * lam, left=False).real
        B, C = torch.randn(10, dtype=F64), torch.randn(10, dtype=F64)
        lam, passed = modes_of(A, B, C)
        dense = memory.axis_alignment(memory.dense_hessian(A, B, C, rho))
        diagonal = memory.axis_alignment(memory.diagonal_hessian(lam, passed.sqrt(), passed.sqrt(), rho))
        ratios.append(float(dense / diagonal))
    assert float(torch.tensor(ratios).median()) > 5


# Networks whose gates are constant

FITTED = [(0.043056426671195004, 0.9970052541497257), (0.332, 0.0)]


@pytest.mark.parametrize(
    ("memory_steps", "state", "sensitivity"),
    [
        (2, 0.15355, 0.024640),
        (4, 0.090047, 0.017589),
        (8, 0.064247, 0.010046),
        (16, 0.051855, 0.0058717),
        (32, 0.044611, 0.0041969),
        (64, 0.038783, 0.0041346),
        (100, 0.034829, 0.0045985),
        (256, 0.025026, 0.0055908),
    ],
)
def test_constant_gates_over_words(memory_steps, state, sensitivity):
    found = memory.gated_second_moments(1 - 1 / memory_steps, FITTED)
    assert float(found.state) == pytest.approx(state, rel=5e-5)
    assert float(found.sensitivity) == pytest.approx(sensitivity, rel=5e-5)


def test_the_notebooks_sensitivity_of_a_gate_has_two_terms_too_many():
    def theirs(z: float) -> float:
        leaves = [torch.tensor(z, dtype=F64, requires_grad=True) for _ in range(2)]
        aux = (1 - leaves[0]) * (1 - leaves[1]) * memory.state_cross_moment(*leaves, FITTED)
        (first,) = torch.autograd.grad(aux, leaves[0], create_graph=True)
        (both,) = torch.autograd.grad(first, leaves[1])
        return float((z * (1 - z)) ** 2 * (aux + 2 * first + both).detach())

    assert theirs(0.5) == pytest.approx(0.01576, abs=5e-6)
    for z, short in ((0.5, 0.36), (1 - 1 / 256, 0.008)):
        ours = float(memory.gated_second_moments(z, FITTED).sensitivity)
        assert abs(theirs(z) / ours - 1) == pytest.approx(short, rel=0.06)
