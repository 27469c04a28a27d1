"""Every test starts from the same random numbers and sees NaN in memory that nobody wrote."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from emulated import CudaDevice, cuda_devices, on_device


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run where asked for, by --run-slow or by any -m expression that lets them pass."""
    if config.getoption("--run-slow") or config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def _seeded_and_unwritten_is_nan() -> Iterator[None]:
    """torch.empty is filled with NaN in deterministic mode, so a result that was not written cannot pass for one."""
    numpy_state = np.random.get_state()
    mode = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        yield
    torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode(mode)
    np.random.set_state(numpy_state)


@pytest.fixture(params=cuda_devices())
def cuda_device(request: pytest.FixtureRequest) -> Iterator[CudaDevice]:
    """Each device that runs device code, one after another; place tensors with its ``tensor``."""
    with on_device(request.param) as device:
        yield device
