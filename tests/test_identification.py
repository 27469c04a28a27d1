"""Linear networks that learn linear networks: teachers, students, training against torch's own loop, tables, and the
committed results."""

import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lsc_ext as lsc
from lsc_ext.cli import main
from lsc_ext.experiments import execute, runner
from lsc_ext.experiments.command import GROUPS, KNOWN, Options, chosen, run_experiments
from lsc_ext.experiments.identification import IDENTIFICATIONS, Identification, identification_grid, identify
from lsc_ext.experiments.identification.students import STUDENTS, build_student
from lsc_ext.experiments.identification.summary import best, cells, findings, label
from lsc_ext.experiments.identification.table import identification_document, shown
from lsc_ext.experiments.identification.teacher import draw_teacher, with_eigenvalues
from lsc_ext.experiments.results import read_results, write_results
from lsc_ext.memory import PopulationLoss, teacher_student_loss
from lsc_ext.memory.adam import effective_learning_rates, probe_rate, scale_rate

F64 = torch.float64
ROOT = Path(__file__).parent.parent
RUN = Identification("ablation", "lru", 6, 1, 0.9, 1.0, 1e-2, 0, iterations=30, horizon=20, teacher_states=3)


def quiet(line):
    pass


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("angle", [1.0, 0.1])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 33])
def test_eigenvalues_go_into_a_ring_and_a_sector(size, angle):
    A = torch.randn(16, size, size, dtype=F64, generator=drawn()) / size**0.5
    before, after = torch.linalg.eigvals(A), torch.linalg.eigvals(with_eigenvalues(A, 0.9, angle))
    expected = (0.9 + 0.1 * before.abs().tanh()).sort(-1).values
    torch.testing.assert_close(after.abs().sort(-1).values, expected)
    # Eigenvalues that nearly coincide are known to the root of rounding only.
    phases = after.angle().abs()
    assert bool((phases <= math.pi * angle + 1e-6).all())
    negative = (before.imag == 0) & (before.real < 0)
    assert int(negative.sum()) > 0
    on_axis = int(((after.imag.abs() < 1e-9) & (after.real < 0)).sum())
    assert on_axis == (int(negative.sum()) if angle == 1 else 0)


def test_the_official_codes_teacher_forgets_sooner_than_it_says():
    """Where a negative eigenvalue is turned without a conjugate, taking the real part leaves r cos(theta_0)."""
    A = torch.diag(torch.tensor([-0.8, 0.5], dtype=F64))
    values, vectors = torch.linalg.eig(A)
    modulus = 0.99 + 0.01 * values.abs().tanh()
    turned = vectors @ torch.diag(torch.polar(modulus, values.angle() * 0.316)) @ torch.linalg.inv(vectors)
    assert float(torch.linalg.eigvals(turned.real).abs().min()) < 0.6
    assert float(torch.linalg.eigvals(with_eigenvalues(A, 0.99, 0.316)).abs().min()) >= 0.99


def test_a_teacher_is_that_of_its_seed():
    one, same, other = (draw_teacher(10, 0.99, 1.0, drawn(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.A, same.A)
    assert not torch.equal(one.A, other.A)
    moduli = torch.linalg.eigvals(one.A).abs()
    assert 0.99 <= float(moduli.min()) <= float(moduli.max()) < 1


@pytest.mark.parametrize(
    ("name", "heads", "states", "count"),
    [("dense", 1, 64, 4225), ("blocks", 32, 64, 257), ("blocks", 64, 128, 513), ("diagonal", 1, 64, 385),
     ("normalized", 1, 64, 449), ("lru", 1, 64, 449)],
)  # fmt: skip
def test_students_have_the_papers_sizes_and_start(name, heads, states, count):
    model = build_student(name, states, heads, 0.9, 0.1, drawn())
    assert sum(p.numel() for p in model.parameters()) == count
    assert all(p.dtype == F64 for p in model.parameters())
    lam = model.eigenvalues(0).detach()
    assert float(lam.abs().max()) < 1
    assert float(lam.angle().abs().max()) <= 0.1 * math.pi + 1e-6
    if name not in ("dense", "blocks"):
        assert float(lam.abs().min()) >= 0.9
    if name in ("normalized", "lru"):
        torch.testing.assert_close(model.gamma_log_l0.detach().exp(), (1 - lam.abs().square()).sqrt())
    again = build_student(name, states, heads, 0.9, 0.1, drawn())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_normalised_student_and_the_lru_start_alike():
    one, other = (build_student(name, 8, 1, 0.9, 1.0, drawn()) for name in ("normalized", "lru"))
    torch.testing.assert_close(one.eigenvalues(0), other.eigenvalues(0))
    assert float(teacher_student_loss(one, other, horizon=50).detach()) < 1e-20


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build_student("dense", 8, 1, 0.9, 1.0, drawn())
    draw_teacher(3, 0.9, 1.0, drawn())
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_students_and_schedules_are_refused():
    with pytest.raises(ValueError, match="student: expected one of dense"):
        build_student("gru", 8, 1, 0.9, 1.0, drawn())
    with pytest.raises(ValueError, match="schedule: expected 'cosine' or 'constant', got 'linear'"):
        identify(replace(RUN, schedule="linear"))
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        identify(replace(RUN, iterations=0))


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_training_is_torchs_own_loop_on_the_exact_loss(schedule):
    configuration = replace(RUN, schedule=schedule)
    found = identify(configuration)
    teacher = draw_teacher(3, 0.9, 1.0, drawn(0))
    student = build_student("lru", 6, 1, 0.9, 1.0, drawn(1))
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, 1e-7)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = teacher_student_loss(student, teacher, horizon=20)
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        if schedule == "cosine":
            scheduler.step()
    assert found["loss"] == pytest.approx(sum(losses) / 30, rel=1e-4)
    assert found["curve"][-1] == [29, pytest.approx(losses[-1], rel=1e-4)]
    assert found["curve"][0] == [0, pytest.approx(losses[0], rel=1e-4)]
    other = identify(replace(configuration, schedule={"cosine": "constant", "constant": "cosine"}[schedule]))
    assert other["curve"][-1][1] != pytest.approx(losses[-1], rel=1e-4)
    silent = lsc.memory.DenseSystem(*(torch.zeros(s, dtype=F64) for s in ((1, 1), (1,), (1,), (1, 1))))
    assert found["power"] == pytest.approx(float(teacher_student_loss(silent, teacher, horizon=20)), rel=1e-4)


def test_a_seed_gives_its_numbers_and_the_students_of_a_seed_one_teacher():
    first, again = identify(RUN), identify(RUN)
    assert {**first, "seconds": None} == {**again, "seconds": None}
    other = identify(replace(RUN, student="dense"))
    assert other["power"] == first["power"]
    assert identify(replace(RUN, seed=1))["power"] != first["power"]


def test_training_that_diverges_is_a_result():
    found = identify(replace(RUN, student="dense", lr=50.0, horizon=300))
    assert found["diverged"]
    assert found["loss"] is None
    assert all(math.isfinite(loss) for _, loss in found["curve"])


def test_a_loss_far_above_silence_is_no_number_that_was_reached():
    found = identify(replace(RUN, student="dense", lr=1.0, horizon=100))
    assert found["curve"][-1][1] > 1e3 * found["power"]
    assert math.isfinite(found["curve"][-1][1])
    assert found["diverged"]
    assert found["loss"] is None


def test_a_run_uses_one_thread_and_gives_the_others_back(monkeypatch):
    threads, used = torch.get_num_threads(), []
    complete = PopulationLoss.__call__

    def counted(self, student):
        used.append(torch.get_num_threads())
        return complete(self, student)

    monkeypatch.setattr(PopulationLoss, "__call__", counted)
    torch.set_num_threads(2)
    try:
        identify(replace(RUN, iterations=1))
        assert used == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("m", "v", "t", "expected"),
    [(0, 0, 1e4, 3.1622053e-3), (0, 1e-4, 1e4, 3.0151816e-3), (0, 1e-2, 1e4, 9.5387466e-4), (0, 1, 1e4, 9.9997743e-5),
     (0, 100, 1e4, 1.0004728e-5), (0.5, 1, 1e4, 5.4998758e-4), (-1, 4, 1e4, -4.0014105e-4), (0, 0, 0, 1e-3)],
)  # fmt: skip
def test_the_published_rate_of_adam(m, v, t, expected):
    found = probe_rate(torch.tensor(m, dtype=F64), torch.tensor(v, dtype=F64), t, 1e-3)
    assert float(found) == pytest.approx(expected, rel=3e-8)


def trained_adam(kind=torch.optim.Adam, **options):
    torch.manual_seed(0)
    weights = [torch.randn(3, dtype=F64, requires_grad=True), torch.randn(2, 2, dtype=F64, requires_grad=True)]
    optimizer = kind(weights, lr=0.02, **options)
    for step in range(7):
        for weight in weights:
            weight.grad = torch.randn_like(weight) * (1 + step)
        optimizer.step()
    return weights, optimizer


def test_the_published_rate_is_adams_next_step_along_a_gradient_of_ones():
    weights, optimizer = trained_adam(betas=(0.8, 0.95), eps=1e-3)
    rates = effective_learning_rates(optimizer, "probe")
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    for old, weight, rate in zip(before, weights, rates, strict=True):
        torch.testing.assert_close(old - weight.detach(), rate)


def test_the_rate_without_momentum_is_what_adam_multiplies_with():
    _, optimizer = trained_adam(betas=(0.8, 0.95), eps=1e-3)
    state = next(iter(optimizer.state.values()))
    v = state["exp_avg_sq"] / (1 - 0.95**7)
    torch.testing.assert_close(effective_learning_rates(optimizer)[0], 0.02 / (v.sqrt() + 1e-3))
    assert bool((effective_learning_rates(optimizer)[0] > 0).all())
    assert not torch.allclose(effective_learning_rates(optimizer)[0], effective_learning_rates(optimizer, "probe")[0])
    assert float(scale_rate(torch.zeros(()), torch.zeros(()), 0, 1e-3)) == pytest.approx(1e5)
    assert len(effective_learning_rates(trained_adam(torch.optim.AdamW)[1])) == 2


def test_rates_of_what_has_none_are_refused():
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(TypeError, match="optimizer: expected Adam or AdamW of torch.optim, got SGD"):
        effective_learning_rates(torch.optim.SGD([weight], lr=1))
    with pytest.raises(ValueError, match="optimizer: expected a step of every parameter"):
        effective_learning_rates(torch.optim.Adam([weight]))
    with pytest.raises(ValueError, match="kind: expected one of 'scale', 'probe', got 'v'"):
        effective_learning_rates(torch.optim.Adam([weight]), "v")


def test_rates_are_kept_where_they_are_asked_for():
    assert identify(RUN)["rates"] == {}
    found = identify(replace(RUN, experiment="adam", schedule="constant"))["rates"]
    assert set(found) == {"nu_log", "theta_log", "gamma_log", "B", "C", "D"}
    row = found["B"]["scale"]
    assert row["count"] == 12
    assert row["not positive"] == 0
    assert row["smallest"] <= row["geometric mean"] <= row["largest"]


def test_the_grids_have_what_the_paper_has():
    for name in IDENTIFICATIONS:
        small, full = (identification_grid(name, full=full, seeds=(0, 1)) for full in (False, True))
        assert len({run.key for run in small}) == len(small) <= len(full) == len({run.key for run in full})
        assert {run.cell for run in small} == {run.cell for run in full}
        assert {run.student for run in small} <= set(STUDENTS)
        assert all((run.horizon, run.teacher_states, run.iterations) == (300, 10, 10_000) for run in full)
        for group in cells(small).values():
            assert len({run.lr for run in group}) == {"adam": 1, "heads": 3}.get(name, 2)
    memories = {run.memory for run in identification_grid("long_memory", full=False, seeds=(0,))}
    assert memories == {0.36, 0.68, 0.84, 0.92, 0.96, 0.98, 0.99}
    assert {run.schedule for run in identification_grid("adam", full=False, seeds=(0,))} == {"constant"}
    with pytest.raises(ValueError, match="experiment: expected one of long_memory"):
        identification_grid("ffn", full=False, seeds=(0,))
    with pytest.raises(ValueError, match=r"seeds: expected distinct numbers, got \[1, 1\]"):
        identification_grid("adam", full=False, seeds=(1, 1))


def fake(loss, power=10.0):
    share = {"count": 4, "not positive": 1, "smallest": 1e-3, "geometric mean": 1e-2, "largest": 0.1}
    rates = {"A": {"scale": share, "probe": share}}
    diverged = loss is None
    seconds, curve = {"training": 60.0}, [[0, power]]
    return {"loss": loss, "power": power, "curve": curve, "diverged": diverged, "rates": {} if diverged else rates,
            "seconds": seconds, "environment": "here"}  # fmt: skip


def test_the_better_rate_is_that_of_the_mean_over_seeds():
    runs = [replace(RUN, lr=lr, seed=seed) for lr in (1.0, 2.0) for seed in (0, 1)]
    losses = dict(zip((run.key for run in runs), (1.0, 9.0, 4.0, 4.5), strict=True))
    results = {key: {"result": fake(loss)} for key, loss in losses.items()}
    summary = best(results, runs)
    assert (summary.lr, summary.losses, summary.mean, summary.missing) == (2.0, (4.0, 4.5), 4.25, 0)
    assert shown(summary) == "4.2 (4 to 4.5), 2"
    assert best(results, runs, relative=True).mean == pytest.approx(0.425)
    # A seed that is missing is no advantage, and one that diverged is the worst.
    assert best({key: found for key, found in results.items() if key != runs[1].key}, runs).lr == 2.0
    results[runs[2].key] = {"result": fake(None)}
    assert best(results, runs).lr == 1.0
    assert shown(best(results, runs[2:])) == "4.5 (4.5 to 4.5), 2, 1 of 2 diverged"
    assert math.isinf(best(results, runs[2:]).mean)
    results[runs[3].key] = {"result": fake(None)}
    assert shown(best(results, runs[2:])) == "diverged, 2"
    assert best({}, runs) is None
    assert shown(None) == "not run"


def test_results_are_kept_and_not_computed_again(tmp_path, monkeypatch):
    computed = []

    def counted(run, data):
        computed.append(run)
        return fake(1.0)

    monkeypatch.setattr(runner, "compute", counted)
    runs = [replace(RUN, seed=seed) for seed in range(3)]
    execute("ablation", runs[:2], tmp_path, say=quiet)
    lines = []
    done = execute("ablation", runs, tmp_path, say=lines.append)
    assert computed == runs
    assert "loss 1.0, 60.0 s" in lines[0]
    assert done.missing == {}
    assert read_results(tmp_path, "ablation").keys() == {run.key for run in runs}
    execute("ablation", [replace(runs[0], iterations=31)], tmp_path, say=quiet)
    assert computed[-1].iterations == 31


def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = f"""
import multiprocessing, sys
from pathlib import Path
from lsc_ext.experiments.identification import identification_grid
from lsc_ext.experiments.runner import execute

def say(line):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    runs = identification_grid("adam", full=False, seeds=tuple(range(40)), iterations=100)
    execute("adam", runs, Path({str(tmp_path)!r}), workers=2, say=say)
"""
    program = tmp_path / "program.py"
    program.write_text(code)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as started:
        children = [int(pid) for pid in started.stdout.readline().split()]
        started.kill()
    assert len(children) == 2
    deadline = time.monotonic() + 20
    while any(_is_alive(pid) for pid in children):
        assert time.monotonic() < deadline, children
        time.sleep(0.05)


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # where there is one: a process that nobody has waited for is not alive
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_command_writes_tables_and_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "compute", lambda run, data: fake(2.0 if run.student == "dense" else 0.001))
    arguments = ["experiments", "ablation", "adam", "heads", "--folder", str(tmp_path), "--seeds", "0"]
    assert main([*arguments, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "nu_0 = 0.99: dense ends at 2e+03 times the loss of 32 blocks of 2 x 2" in printed
    text = (tmp_path / "identification.md").read_text()
    assert "| dense, nu_0 = 0.99 | 2 (2 to 2), 0.001 | 0.2 (0.2 to 0.2), 0.001 |" in text
    assert "| dense, A | 0.01 (0.001 to 0.1) | 0.01 (0.001 to 0.1) | 1 of 4 |" in text
    assert "**0 of 28 runs; 28 have not been run**" in text
    assert (tmp_path / "identification.svg").exists()
    assert not (tmp_path / "tables.md").exists()
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- identification -->\nold\n<!-- /identification -->\nafter\n")
    assert main([*arguments, "--page", str(page), "--tables", "--json"]) == 0
    assert "old" not in page.read_text()
    assert page.read_text().startswith("before\n<!-- identification -->\n![Losses")
    report = json.loads(capsys.readouterr().out)
    assert report["ablation"]["runs"] == 16
    page.write_text("no markers")
    monkeypatch.setattr(runner, "compute", lambda run, data: pytest.fail("computed before the page was looked at"))
    with pytest.raises(ValueError, match="page: expected <!-- identification -->"):
        run_experiments(["long_memory"], Options(folder=tmp_path, seeds=(0,), page=page), quiet)


def test_groups_stand_for_the_experiments_of_a_paper():
    assert chosen(["curse"]) == list(IDENTIFICATIONS)
    assert chosen(["all"]) == list(KNOWN)
    assert chosen(["heads", "stability"]) == [*GROUPS["stability"], "heads"]


def committed():
    return {name: read_results(ROOT / "docs" / "identification", name) for name in IDENTIFICATIONS}


def planned():
    return {name: Options().identifications(name) for name in IDENTIFICATIONS}


def test_the_committed_page_is_what_the_committed_results_give():
    page = (ROOT / "docs" / "identification.md").read_text()
    found = re.search(r"<!-- identification -->\n(.*)<!-- /identification -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == identification_document(committed(), planned(), "identification/identification.svg")


def test_the_committed_results_are_the_default_grid():
    for name, results in committed().items():
        assert {key: entry["config"] for key, entry in results.items()} == {r.key: r.config() for r in planned()[name]}
        assert (ROOT / "docs" / "identification" / f"{name}.json").stat().st_size < 200_000


def at(experiment, student, heads, memory, states=64):
    runs = [
        run
        for run in planned()[experiment]
        if (run.student, run.heads, run.memory, run.states) == (student, heads, memory, states)
    ]
    return best(committed()[experiment], runs)


def test_the_committed_ablation_has_the_papers_order():
    dense, blocks = at("ablation", "dense", 1, 0.99), at("ablation", "blocks", 32, 0.99)
    assert dense.mean >= 1000 * blocks.mean
    assert len(dense.losses) == len(blocks.losses) == 3
    short = at("ablation", "dense", 1, 0.36).mean / at("ablation", "blocks", 32, 0.36).mean
    assert short <= 10  # where little is remembered the dense network is the best
    for student, heads, states in (("blocks", 64, 128), ("diagonal", 1, 64), ("normalized", 1, 64), ("lru", 1, 64)):
        assert dense.mean >= 1000 * at("ablation", student, heads, 0.99, states).mean
    assert any("dense ends at" in line for _, line in findings(committed(), planned()))


def test_the_committed_dense_network_fails_where_memory_is_long():
    losses = {
        student: [at("long_memory", student, 1, memory).mean for memory in (0.36, 0.68, 0.84, 0.92, 0.96, 0.98, 0.99)]
        for student in ("dense", "lru")
    }
    assert losses["dense"][-1] >= 1000 * losses["lru"][-1]
    assert 0.1 <= losses["dense"][0] / losses["lru"][0] <= 10
    assert losses["dense"][-1] >= 1e6 * losses["dense"][0]
    assert losses["lru"][-1] <= 1e4 * losses["lru"][0]


def test_the_committed_heads_of_two_states_learn_and_one_head_does_not():
    losses = {heads: at("heads", "blocks", heads, 0.99).mean for heads in (1, 2, 4, 8, 16, 32)}
    assert losses[1] >= 1000 * losses[32]
    assert max(losses, key=losses.get) == 1


def test_the_committed_angles_leave_diagonal_networks_ahead():
    planned_angles = planned()["angles"]
    for angle in {run.angle for run in planned_angles}:
        losses = {
            student: best(
                committed()["angles"], [r for r in planned_angles if (r.student, r.angle) == (student, angle)]
            ).mean
            for student in ("dense", "diagonal", "lru")
        }
        assert losses["dense"] >= 100 * max(losses["diagonal"], losses["lru"]), angle


def test_the_committed_experiments_took_less_than_an_hour_on_two_cores():
    minutes = {
        name: sum(entry["result"]["seconds"]["training"] for entry in results.values()) / 60
        for name, results in committed().items()
    }
    assert minutes["ablation"] / 2 < 20
    assert sum(minutes.values()) / 2 < 60


def test_a_committed_run_is_computed_again():
    entry = next(e for e in committed()["ablation"].values() if e["config"]["student"] == "lru")
    again = identify(Identification(**{**entry["config"], "iterations": 40, "schedule": "constant"}))
    # For 40 of 10,000 iterations the rate is that of the beginning, but for 4e-5 of it.
    expected = dict(map(tuple, entry["result"]["curve"]))
    for iteration, loss in again["curve"][:15]:
        if iteration in expected:
            assert loss == pytest.approx(expected[iteration], rel=1e-3)
    assert again["power"] == pytest.approx(entry["result"]["power"], rel=1e-4)


def test_a_file_keeps_what_was_written(tmp_path):
    entry = {"config": RUN.config(), "result": fake(1.0)}
    write_results(tmp_path, "ablation", {RUN.key: entry})
    assert read_results(tmp_path, "ablation") == {RUN.key: entry}
    assert label(RUN) == "LRU"
