"""The machine's peak as measured is one: no product of torch's exceeds it, and a double takes two floats' place."""

import math
import time

import pytest
import torch

from lsc_ext import _C


@pytest.fixture(scope="module")
def rates():
    return {dtype: _C.fma_rate(dtype, 1, 0.1) for dtype in ("float32", "float64")}


def test_a_vector_holds_twice_as_many_floats_as_doubles(rates):
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())
    assert 1.6 < rates["float32"] / rates["float64"] < 2.5


def test_a_matrix_product_stays_below_the_peak(rates):
    """Chains that wait for each other, or registers spilled to memory, would fall below what torch reaches."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        a, b = torch.randn(512, 512, dtype=torch.float64), torch.randn(512, 512, dtype=torch.float64)
        seconds = []
        for _ in range(10):
            started = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    reached = 2 * 512**3 / min(seconds)
    if _C.build_info()["instruction_set"] != "portable":  # torch uses wider vectors than that
        assert reached < 1.2 * rates["float64"]


def test_a_copy_is_measured():
    rate = _C.copy_rate(1, 1 << 24, 0.05)
    assert 1e8 < rate < 1e13


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _C.fma_rate("float16", 1, 0.1), ["dtype", "float16"]),
        (lambda: _C.fma_rate("float32", 0, 0.1), ["threads", "at least 1", "0"]),
        (lambda: _C.fma_rate("float32", 1, 0.0), ["seconds", "more than 0"]),
        (lambda: _C.fma_rate("float32", 1, float("nan")), ["seconds", "more than 0"]),
        (lambda: _C.copy_rate(1, 0, 0.1), ["bytes", "at least 1", "0"]),
    ],
)
def test_bad_arguments_say_what_was_expected(call, words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        call()
    assert all(word in str(caught.value) for word in words)
