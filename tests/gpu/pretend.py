"""A device that is not there, to find out on a CPU what would wait for a real one.

Its tensors hold their numbers on the CPU and say that they are elsewhere. Whatever brings numbers
back, or sends some there in a way that waits, is counted; two devices in one operation raise.
"""

from __future__ import annotations

import traceback
from collections import Counter
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# PyTorch keeps this name free for devices of others. Indexing asks for a guard of the device.
ELSEWHERE = torch.device("privateuseone:0")
aten = torch.ops.aten
_COMPOSITE = "CompositeImplicitAutograd"


class _Guard(torch._C._acc.DeviceGuard):
    def type_(self):
        return torch._C._autograd.DeviceType.PrivateUse1


torch._C._acc.register_python_privateuseone_device_guard(_Guard())
torch._register_device_module(  # what torch asks of a device before it sends anything there
    ELSEWHERE.type,
    SimpleNamespace(
        _lazy_init=lambda: None,
        is_initialized=lambda: True,
        current_device=lambda: 0,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
    ),
)


class Far(torch.Tensor):
    """A tensor that says it is elsewhere; ``near`` holds its numbers."""

    @staticmethod
    def __new__(cls, near: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, near: torch.Tensor):
        self.near = near

    def tolist(self):
        """As torch does it for a device: the numbers come back first."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on a pretended device outside of Pretending")


class Pretending(TorchDispatchMode):
    """Counts what would wait, by kind and by the line of the workbench that asked.

    ``reads`` bring numbers back: the device has to be done with all work so far. ``uploads`` send
    numbers in a way that waits likewise (``torch.tensor(..., device=...)``, a list as an index).
    """

    _ALWAYS_READ = frozenset(
        (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)
    )

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self._lifted: list[bool] = []

    def __enter__(self):
        self._lifted.append(torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(...) shows its way to the device
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(self._lifted.pop())
        return super().__exit__(*error)

    def forget(self) -> None:
        """Count from nothing."""
        self.reads.clear()
        self.uploads.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        flat = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if torch.is_tensor(x)]
        far = any(isinstance(x, Far) for x in flat)
        goal = kwargs.get("device") or next((x for x in args if isinstance(x, torch.device)), None)
        there = goal is not None and torch.device(goal).type == ELSEWHERE.type
        if not far and not there:
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            with self:  # made of others, which are what counts
                return func.decompose(*args, **kwargs)
        if there:
            kwargs["device"] = torch.device("cpu")
        back = goal is not None and not there
        self._count(func, args, kwargs, flat, back, far)
        near = {id(x.near): x for x in flat if isinstance(x, Far)}
        args, kwargs = tree_map(lambda x: x.near if isinstance(x, Far) else x, (args, kwargs))
        out = func(*args, **kwargs)
        if back or func is aten._local_scalar_dense.default:
            return out
        if func is aten.copy_.default and not isinstance(args[0], Far) and id(args[0]) not in near:
            return out

        def again(x):
            if not torch.is_tensor(x):
                return x
            return near[id(x)] if id(x) in near else Far(x)

        return tree_map(again, out)

    def _count(self, func, args, kwargs, flat, back: bool, far: bool) -> None:
        host = [x for x in flat if not isinstance(x, Far) and x.dim()]
        indices = func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
        if func in self._ALWAYS_READ or (back and far):
            self.reads[_asker()] += 1
        elif indices and any(
            x.dtype in (torch.bool, torch.uint8) for x in args[1] if x is not None
        ):
            self.reads[_asker()] += 1  # how many there are is not known before
        elif func is aten._to_copy.default:
            if not far and not kwargs.get("non_blocking"):
                self.uploads[_asker()] += 1
        elif func is aten.copy_.default:
            to, source = args[:2]
            if isinstance(source, Far) and not isinstance(to, Far):
                self.reads[_asker()] += 1
            elif source.dim() and not isinstance(source, Far):
                self.uploads[_asker()] += 1
        elif indices and host:
            self.uploads[_asker()] += 1
        elif host:
            raise AssertionError(f"{func}: a tensor of the host among those of the device")


def _asker() -> str:
    """File and line of the workbench that the operation comes from."""
    for frame in reversed(traceback.extract_stack()):
        if "/workbench/" in frame.filename:
            return f"{frame.filename.rpartition('/workbench/')[2]}:{frame.lineno} {frame.line}"
    return "a test"


def moved(network: torch.nn.Module) -> torch.nn.Module:
    """The network with all its weights and buffers elsewhere; inside :class:`Pretending`."""
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, x in held.items():
                if x is not None:
                    held[name] = Far(x.detach())
    return network
