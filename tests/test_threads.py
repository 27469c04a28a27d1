"""Forked children, Ctrl-C, and the number of threads."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

import lsc_ext as lsc


def _radii(threads: int) -> torch.Tensor:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch.nn.GRU(5, 40, 2)
    report = lsc.radii(model, torch.randn(6, 5, 5), generator=torch.Generator().manual_seed(1))
    return torch.cat([estimate.radius.detach().flatten() for estimate in report.values()])


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_bit():
    assert torch.equal(_radii(1), _radii(2))
    assert torch.equal(_radii(1), _radii(5))


def test_a_forked_child_of_a_process_that_used_its_pool_finishes_with_the_same_numbers():
    expected = _radii(2)
    (torch.randn(300, 300) @ torch.randn(300, 300)).sum()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if torch.equal(_radii(2), expected) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_ctrl_c_stops_a_long_call_at_once():
    program = textwrap.dedent(
        """
        import sys, torch, lsc_ext as lsc
        model = torch.nn.LSTM(32, 256, 2)
        x = torch.randn(64, 64, 32)
        print("go", flush=True)
        try:
            lsc.radii(model, x, tol=1e-6)
        except KeyboardInterrupt:
            sys.exit(77)
        sys.exit(1)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(1.0)
    sent = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 77
    process.stdout.close()
    assert time.perf_counter() - sent < 5
