"""The instrument itself: a fake device must refuse and count what a real one would."""

from collections.abc import Callable

import pytest
import torch
from fake_cuda import FakeCudaTensor, fake_cuda
from torch import Tensor, nn


@pytest.mark.parametrize("module", [nn.RNN, nn.GRU, nn.LSTM], ids=lambda m: m.__name__)
def test_a_module_of_torch_runs_and_learns_as_on_the_host(module: Callable[..., nn.Module]) -> None:
    host = module(3, 5, 2)
    x = torch.randn(7, 2, 3)
    expected = host(x)[0]
    expected.square().sum().backward()
    with fake_cuda() as device:
        model = module(3, 5, 2)
        model.load_state_dict(host.state_dict())
        model.to("cuda")
        output = model(x.cuda())[0]
        output.square().sum().backward()
        assert not device.reads
        assert output.device == torch.device("cuda:0")
        torch.testing.assert_close(output.cpu(), expected)
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, nn.Parameter)
            assert isinstance(parameter.grad, FakeCudaTensor)
            torch.testing.assert_close(parameter.grad.cpu(), host.get_parameter(name).grad)


def test_an_optimizer_moves_weights_on_the_device() -> None:
    with fake_cuda() as device:
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        x = torch.randn(8, 3, device="cuda")
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (model(x) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        assert device.reads == []
        assert losses[-1].item() < 0.5 * losses[0].item()


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: there.mul_(here),
        lambda here, there: here @ there,
        lambda here, there: torch.cat((here, there)),
        lambda here, there: torch.stack((here.sum(), there.sum())),
        lambda here, there: torch.where(here > 0, here, there),
        lambda here, there: here.index_select(0, torch.tensor([0])),
        lambda here, there: there[here[0] > 0],
        lambda here, there: nn.functional.linear(here, there),
    ],
    ids=["add", "in place", "matmul", "cat", "stack", "where", "index_select", "index", "linear"],
)
def test_tensors_of_two_devices_do_not_mix(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mixed(torch.ones(2, 2, device="cuda"), torch.ones(2, 2))


def test_two_fake_devices_do_not_mix() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="cuda:0 and cuda:1"):
        torch.ones(2, device="cuda:0") + torch.ones(2, device="cuda:1")


def test_numbers_and_indices_of_the_host_are_welcome() -> None:
    with fake_cuda() as device:
        x = torch.arange(6.0, device="cuda").reshape(2, 3)
        y = x + torch.tensor(1.0)
        assert y.device.type == "cuda"
        assert not device.uploads
        rows = x[torch.tensor([1])]
        assert rows.tolist() == [[3.0, 4.0, 5.0]]
        assert device.uploads == ["index"]


@pytest.mark.parametrize(
    ("read", "count"),
    [
        (lambda x: x[0].item(), 1),
        (lambda x: float(x.sum()), 1),
        (lambda x: bool((x > 0).any()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 1], 1),
        (lambda x: x.unique(), 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x * 2 + x.sum(), 0),
        (lambda x: x[1:].clone(), 0),
        (lambda x: x.new_zeros(3), 0),
    ],
)
def test_what_makes_the_host_wait_is_counted(read: Callable[[Tensor], object], count: int) -> None:
    with fake_cuda() as device:
        x = torch.arange(3.0, device="cuda")
        read(x)
        assert len(device.reads) == count, device.reads


def test_random_numbers_need_a_generator_of_the_device() -> None:
    with fake_cuda() as device:
        with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
            torch.randn(3, device="cuda", generator=torch.Generator())
        torch.randn(3, generator=torch.Generator()).cuda()
        assert not device.draws
        torch.rand(3, device="cuda")
        assert len(device.draws) == 1


def test_results_in_place_and_views_share_memory() -> None:
    with fake_cuda():
        x = torch.zeros(3, 3, device="cuda")
        x[1] = 1
        x[:, 2] += torch.ones(3, device="cuda")
        assert x.cpu().tolist() == [[0, 0, 1], [1, 1, 2], [0, 0, 1]]


def test_numpy_needs_the_host() -> None:
    with fake_cuda(), pytest.raises(TypeError, match="can't convert cuda:0"):
        torch.zeros(2, device="cuda").numpy()


def test_a_compiled_operator_without_a_kernel_for_cuda_is_refused() -> None:
    with torch.library._scoped_library("lsc_ext", "FRAGMENT") as library:
        library.define("only_on_the_host(Tensor x) -> Tensor")
        library.impl("only_on_the_host", lambda x: x + 1, "CPU")
        with fake_cuda(), pytest.raises(NotImplementedError, match="'CUDA' backend"):
            torch.ops.lsc_ext.only_on_the_host(torch.zeros(2, device="cuda"))


def test_outside_there_is_no_device() -> None:
    with fake_cuda():
        torch.zeros(2, device="cuda")
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            torch.zeros(2, device="cuda")
