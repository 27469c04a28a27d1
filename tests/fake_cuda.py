"""A CUDA device without a GPU: inside ``fake_cuda()`` tensors on ``cuda:0``, ``cuda:1`` .. exist in memory of the host.

They say ``device=cuda:0``, refuse to meet tensors of another device where torch refuses, and count what a GPU would
make the host wait for. torch's own operations run on the memory inside. Compiled operators take the kernel that is
registered for CUDA, and what asks :mod:`lsc_ext.backends` for a CUDA device gets the device code on the host
(:mod:`emulated`).

Beneath Python the tensors are of the device type "lazy", the only one whose backward pass needs no thread of a device.
Not seen: autocast of torch's own operations, generators on the device, ``torch.cuda`` beyond streams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import emulated
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lsc_ext import backends

_BENEATH = "lazy"
#: Results whose size or value the host must know.
_READS = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
#: The position of the argument that may hold indices of the host.
_INDEXED = {"index": 1, "index_put": 1, "index_put_": 1, "_index_put_impl_": 1}
_JOINS = {"cat", "stack"}
#: They take lengths of the host as their second argument, and hand out others as their second result.
_PACKING = {"_pack_padded_sequence", "_pad_packed_sequence"}


class FakeCudaTensor(Tensor):
    """A tensor on ``cuda:index`` whose numbers are those of ``held``, a tensor of the host."""

    held: Tensor
    index: int
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor, index: int) -> FakeCudaTensor:
        made: FakeCudaTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{_BENEATH}:{index}",
        )
        made.held, made.index = held, index
        return made

    device = property(lambda self: torch.device("cuda", self.index))  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FakeCudaTensor({self.held}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = _CURRENT[-1] if _CURRENT else None
        assert device is not None, f"{func}: a tensor of a fake device was used outside fake_cuda()"
        return device.run(func, args, kwargs or {})


class FakeCuda:
    """What happened on the device.

    Attributes:
        reads: names of the operations that made the host wait for a result.
        uploads: names of the operations that copied memory of the host to the device.
        draws: names of the operations that drew random numbers on the device.
        streams: the devices whose current stream was asked for.
    """

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.uploads: list[str] = []
        self.draws: list[str] = []
        self.streams: list[torch.device] = []
        self.factories: Any = contextlib.nullcontext()

    def clear(self) -> None:
        """Forgets what happened."""
        for events in (self.reads, self.uploads, self.draws, self.streams):
            events.clear()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        leaves = tree_leaves((args, kwargs))
        fakes = [leaf for leaf in leaves if isinstance(leaf, FakeCudaTensor)]
        name = func._schema.name.removeprefix("aten::")
        if fakes and func.namespace == "lsc_ext":
            return self._run_compiled(func, args, kwargs)
        target = self._target(name, args, kwargs, fakes)
        self._check_devices(name, args, leaves, fakes)
        self._count(func, name, args, kwargs, leaves, fakes, target)
        out = func(*tree_map(_bare, args), **tree_map(_bare, kwargs))
        if target is None:
            return out
        changed = {id(fake.held): fake for fake in fakes}
        for fake in fakes:
            assert fake.shape == fake.held.shape, f"{name}: a fake tensor cannot follow a change of shape in place"

        def faked(result: Any) -> Any:
            if not isinstance(result, Tensor):
                return result
            known = changed.get(id(result))
            if known is not None:
                return known
            # Beneath, nobody would see that values wait for their conjugation, or that zeros have no memory.
            seen = torch.zeros(result.shape, dtype=result.dtype) if result._is_zerotensor() else result
            return FakeCudaTensor(seen.resolve_conj().resolve_neg(), target)

        return (faked(out[0]), out[1]) if name in _PACKING else tree_map(faked, out)

    def _run_compiled(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The kernel registered for CUDA, on the tensors as they are: it asks for devices and addresses itself."""
        if not torch._C._dispatch_has_kernel_for_dispatch_key(func._schema.name, "CUDA"):
            raise NotImplementedError(f"Could not run '{func._schema.name}' with arguments from the 'CUDA' backend.")
        with self.factories:
            return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *args, **kwargs)

    def _target(self, name: str, args: Any, kwargs: dict[str, Any], fakes: list[FakeCudaTensor]) -> int | None:
        """The index of the device that the result is on; None for the host."""
        asked = kwargs.get("device")
        if asked is not None:
            asked = torch.device(asked)
            return (asked.index or 0) if asked.type in ("cuda", _BENEATH) else None
        if name == "copy_":
            return args[0].index if isinstance(args[0], FakeCudaTensor) else None
        return fakes[0].index if fakes else None

    def _check_devices(self, name: str, args: Any, leaves: list[Any], fakes: list[FakeCudaTensor]) -> None:
        if not fakes or name in ("copy_", "_to_copy"):
            return
        if name in _INDEXED and isinstance(args[0], FakeCudaTensor):
            free = {id(i) for i in args[_INDEXED[name]] if not isinstance(i, FakeCudaTensor)}
            leaves = [leaf for leaf in leaves if id(leaf) not in free]
        if name in _PACKING:
            leaves = [leaf for leaf in leaves if leaf is not args[1]]
        least = 0 if name in _JOINS else 1
        found = {
            str(leaf.device)
            for leaf in leaves
            if isinstance(leaf, Tensor) and (isinstance(leaf, FakeCudaTensor) or leaf.dim() >= least)
        }
        if len(found) > 1:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(sorted(found))}! (in {name})"
            )

    def _count(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        leaves: list[Any],
        fakes: list[FakeCudaTensor],
        target: int | None,
    ) -> None:
        if target is not None and torch.Tag.nondeterministic_seeded in func.tags:
            generators = [leaf for leaf in leaves if isinstance(leaf, torch.Generator)]
            if any(generator.device.type != "cuda" for generator in generators):
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
            self.draws.append(name)
        if name in ("copy_", "_to_copy"):
            source = args[1] if name == "copy_" else args[0]
            if isinstance(source, FakeCudaTensor) and target is None:
                self.reads.append(name)
            elif not isinstance(source, FakeCudaTensor) and target is not None:
                self.uploads.append(name)
            return
        if not fakes:
            return
        indices = [i for i in args[_INDEXED[name]] if i is not None] if name in _INDEXED else []
        if name in _READS or any(i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.reads.append(name)
        if any(not isinstance(i, FakeCudaTensor) for i in indices):
            self.uploads.append(name)


def _bare(value: Any) -> Any:
    if isinstance(value, FakeCudaTensor):
        assert value.dtype == value.held.dtype, (
            "converted where it is, which it cannot follow: convert it, then move it"
        )
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type in ("cuda", _BENEATH) else value


class _Dispatched(TorchDispatchMode):
    """Sees the calls that have no fake tensor among their arguments: what makes tensors, and what moves them."""

    def __init__(self, device: FakeCuda) -> None:
        super().__init__()
        # torch starts no CUDA where a mode of this kind is at work.
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # type: ignore[attr-defined]
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._device.run(func, args, kwargs or {})


class _Called(TorchFunctionMode):
    """Gives ``cuda`` the index that torch would ask the driver for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func is Tensor.cuda:
            return args[0].to("cuda:0")
        return func(*[_indexed(a) for a in args], **{name: _indexed(value) for name, value in kwargs.items()})


def _indexed(value: Any) -> Any:
    named = isinstance(value, (str, torch.device)) and str(value) == "cuda"
    return torch.device("cuda", 0) if named else value


_CURRENT: list[FakeCuda] = []


@contextlib.contextmanager
def fake_cuda(seed: int = 0) -> Iterator[FakeCuda]:
    """Inside, ``device="cuda"`` works; the threads of the device code take turns in an order that ``seed`` decides."""
    device = FakeCuda()
    emulated.module().set_seed(seed)

    def current_stream(of: Any = None) -> Any:
        device.streams.append(torch.device(of))
        return SimpleNamespace(cuda_stream=0)

    with (
        backends.emulated(emulated.module(), "cuda"),
        mock.patch("torch.cuda.current_stream", current_stream),
        mock.patch("torch.cuda.current_device", return_value=0),
        mock.patch("torch.backends.cudnn.is_acceptable", return_value=False),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        _Called(),
        _Dispatched(device) as mode,
    ):
        device.factories = mode
        _CURRENT.append(device)
        try:
            yield device
        finally:
            _CURRENT.pop()
