"""The number of threads, forked children, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import lsc_ext as lsc

COUNTS = (2, 3, 5)
LATENCY = 0.2  # seconds from the signal to KeyboardInterrupt


def _radii(threads: int) -> torch.Tensor:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch.nn.GRU(5, 40, 2)
    report = lsc.radii(model, torch.randn(6, 5, 5), generator=torch.Generator().manual_seed(1))
    return torch.cat([estimate.radius.detach().flatten() for estimate in report.values()])


def _radius_gradient(threads: int) -> torch.Tensor:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch.nn.LSTM(5, 40, 2)
    report = lsc.radii(model, torch.randn(6, 5, 5), generator=torch.Generator().manual_seed(1))
    loss = report["time"].radius.sum() + report["depth"].radius.sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(model.parameters()))])


def _layer(kind: type[torch.nn.Module], threads: int) -> list[torch.Tensor]:
    """Outputs and all gradients of two layers, work enough for every thread; five sequences share unevenly.

    No tensor is so large that torch's own threads, which do not survive a fork, would work on it.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, x = kind(16, 64, 2), torch.randn(10, 5, 16, requires_grad=True)
    with torch.no_grad():
        alone = model(x)[0]
    output = model(x)[0]
    gradients = torch.autograd.grad(output.square().sum(), (x, *model.parameters()))
    return [t.detach() for t in (alone, output, *gradients)]


def _scan(threads: int) -> torch.Tensor:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    found = []
    for shape in ((300,), (400, 3, 300)):  # the same at every step, or of its own
        a, b = torch.rand(shape, requires_grad=True), torch.randn(400, 3, 300, requires_grad=True)
        h = lsc.scan(a, b)
        found += [h, *torch.autograd.grad(h.square().sum(), (a, b))]
    return torch.cat([t.detach().flatten() for t in found])


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("work", [_radii, _radius_gradient, _scan])
def test_the_number_of_threads_changes_no_bit(work):
    alone = work(1)
    for threads in COUNTS:
        assert torch.equal(work(threads), alone), f"{threads} threads found other numbers than one"


@pytest.mark.parametrize("kind", [lsc.nn.RNN, lsc.nn.GRU, lsc.nn.LSTM])
def test_the_number_of_threads_changes_no_bit_of_a_layer(kind):
    alone = _layer(kind, 1)
    for threads in COUNTS:
        for found, expected in zip(_layer(kind, threads), alone, strict=True):
            assert torch.equal(found, expected), f"{threads} threads found other numbers than one"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the threads of a process as Linux shows them")
@pytest.mark.skipif(lsc.build_info()["thread_runtime"] != "openmp", reason="one thread is all that this build has")
@pytest.mark.parametrize("threads", [1, *COUNTS])
def test_as_many_threads_work_as_torch_was_told(threads):
    program = f"""
        import os, torch, lsc_ext as lsc
        torch.set_num_threads({threads})
        model, x = torch.nn.GRU(5, 128), torch.randn(20, 5, 5)
        before = len(os.listdir("/proc/self/task"))
        with torch.no_grad():
            lsc.radii(model, x, directions=("time",))
        print(len(os.listdir("/proc/self/task")) - before + 1)
        """
    assert int(_run(program)) == threads


def test_a_forked_child_of_a_process_that_used_its_pool_finishes_with_the_same_numbers():
    expected = _radii(2)
    (torch.randn(300, 300) @ torch.randn(300, 300)).sum()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if torch.equal(_radii(2), expected) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


class _Measurements(torch.utils.data.Dataset[list[torch.Tensor]]):
    """What a process computes when it is asked, with two threads, though the loader sets one."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return [_radii(2), *_layer(lsc.nn.GRU, 2)]


def test_workers_of_a_loader_measure_after_the_parent_used_the_pool():
    here = _Measurements()[0]
    loader = torch.utils.data.DataLoader(
        _Measurements(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=30
    )
    measured = list(loader)
    assert len(measured) == 4
    for there in measured:
        assert all(torch.equal(a, b) for a, b in zip(there, here, strict=True))


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


#: What sets `call`, and `took` where a call never ends by itself.
LONG_CALLS = {
    "forward": """
        model, x = lsc.nn.LSTM(64, 1024), torch.randn(1000, 4, 64)
        def call():
            with torch.no_grad():
                model(x)
        """,
    "forward of rows that two workers cannot share": """
        model, x = lsc.nn.LSTM(64, 1024), torch.randn(1000, 3, 64)
        def call():
            with torch.no_grad():
                model(x)
        """,
    "backward": """
        model, x = lsc.nn.GRU(1024, 1024), torch.randn(25, 256, 1024)
        loss = model(x)[0].sum()
        def call():
            loss.backward(retain_graph=True)
        """,
    "radii": """
        model, x = torch.nn.LSTM(64, 256), torch.randn(32, 8, 64)
        def call():
            with torch.no_grad():
                lsc.radii(model, x, tol=1e-6)
        """,
    "gradient of radii": """
        model, x = torch.nn.GRU(64, 256), torch.randn(16, 8, 64)
        def call():
            lsc.radii(model, x, tol=1e-6)["time"].mean().backward()
        """,
    "pretrain": """
        model, x, took = torch.nn.GRU(16, 128, 2), torch.randn(32, 40, 16), 1.0
        lsc.pretrain(model, x, 0.5, steps=1)  # what torch imports at first would stay half imported
        def call():
            lsc.pretrain(model, x, 0.5, steps=10**6, tolerance=1e-9, patience=10**6)
        """,
}

INTERRUPTED = """
import json, os, signal, threading, time
import torch
import lsc_ext as lsc

torch.set_num_threads(2)
torch.manual_seed(0)
took = None
{setup}


def send():
    global sent
    sent = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)


def latency(delay):
    finished = False
    timer = threading.Timer(delay, send)
    timer.start()
    try:
        call()
        finished = True
        timer.join()
    except KeyboardInterrupt:
        return None if finished else time.perf_counter() - sent


for _ in range(2 if took is None else 0):  # the first call may be slower
    start = time.perf_counter()
    call()
    took = time.perf_counter() - start
found = {{}}
for part in (0.1, 0.3, 0.5, 0.7):
    found[part] = [one for one in (latency(part * took) for _ in range(3)) if one is not None]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG_CALLS)
def test_ctrl_c_reaches_a_long_call_wherever_it_is(name):
    found = json.loads(_run(INTERRUPTED.format(setup=textwrap.dedent(LONG_CALLS[name]))))
    for part, seconds in found.items():
        assert seconds, f"every call was over before {part} of the time that one takes"
        assert min(seconds) < LATENCY, f"after {part} of a {name}: {seconds} seconds from the signal to the exception"


def test_ctrl_c_stops_a_long_call_at_once():
    setup = """
        model, x, took = torch.nn.LSTM(32, 256, 2), torch.randn(64, 64, 32), 1.0
        def call():
            with torch.no_grad():
                lsc.radii(model, x, tol=1e-6)
        """
    found = json.loads(_run(INTERRUPTED.format(setup=textwrap.dedent(setup))))
    for seconds in found.values():
        assert min(seconds) < LATENCY
