"""Whether a network is still as it was when a fast pass was made ready for it."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from itertools import chain
from operator import attrgetter
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from workbench.models.anatomy import Anatomy
from workbench.models.native.build import Unavailable, attempt
from workbench.models.walk import FusedWalk

_VERSION = attrgetter("_version")
# Hooks are looked at after so many passes at the latest.
_LOOK_EVERY_PASSES = 64
# transformers leaves these on a model once it was asked for hidden states; they do nothing else.
_RESTING = "transformers.utils.output_capturing"
# A change is followed only after so many passes without another one.
_SETTLED_PASSES = 4
# After a refusal it is tried again only so much later, or when a session begins.
_PATIENCE_PASSES = 64


class Watch:
    """Modules, weights and hooks as they stood: noted one by one, then :meth:`seal` begins it."""

    def __init__(self) -> None:
        # Columns of what is watched: the dictionaries that hold it, its names in them, and it.
        self._modules: tuple[list[dict], list[str], list[nn.Module]] = ([], [], [])
        self._weights: tuple[list[dict], list[str], list[torch.Tensor]] = ([], [], [])
        self._versions: list[int] = []
        self._hooks: list[dict] = []
        self._hook_counts: list[int] = []

    @property
    def weights(self) -> list[torch.Tensor]:
        """Every weight of the modules noted, a shared one as often as it stands somewhere."""
        return self._weights[2]

    def child(self, parent: Any, name: str) -> Any:
        """Note that this module stands here, and what may change about it."""
        module = parent._modules[name]
        _append(self._modules, (parent._modules, name, module))
        self.note(module)
        return module

    def note(self, module: nn.Module) -> None:
        """Note what may change about a module.

        Raises:
            Unavailable: a hook, or another ``forward``, which a fast pass would not run.
        """
        if "forward" in module.__dict__:
            raise Unavailable(f"{type(module).__name__}.forward has been replaced")
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            if any(getattr(hook, "__module__", "") != _RESTING for hook in hooks.values()):
                raise Unavailable(f"a hook watches {type(module).__name__}")
            self._hooks.append(hooks)
            self._hook_counts.append(len(hooks))
        for name, weight in module._parameters.items():
            if weight is not None:
                _append(self._weights, (module._parameters, name, weight))
                self._versions.append(weight._version)

    def seal(self) -> None:
        """All is noted."""
        self._places = _Places(self._modules, self._weights)
        self._hooks_made, self._passes = RemovableHandle.next_id, 0

    def standing(self) -> bool:
        """Whether modules, hooks and weights are still the same objects in the same places.

        Hooks are looked at only where torch has made one since, anywhere, and every so many passes:
        there are many, and they are spread over the memory.
        """
        self._passes += 1
        made = RemovableHandle.next_id
        if made != self._hooks_made or self._passes >= _LOOK_EVERY_PASSES:
            if list(map(len, self._hooks)) != self._hook_counts:
                return False
            self._hooks_made, self._passes = made, 0
        return self._places.same()

    def untouched(self) -> bool:
        """Whether the version counters of all weights are as they were."""
        return list(map(_VERSION, self._weights[2])) == self._versions


class _Places:
    """Where modules and weights stand: dictionaries, names and what is found under them.

    A pass of a small model takes two milliseconds, and in a loop of Python the looking took a tenth
    of one; hence the kernel does it where there is one, by the addresses of the objects.
    """

    def __init__(self, *columns: tuple[list[dict], list[str], list[Any]]):
        self._held = [list(chain.from_iterable(parts)) for parts in zip(*columns, strict=True)]
        self._count = len(self._held[0])
        arrays = [(ctypes.c_void_p * self._count)(*map(id, column)) for column in self._held]
        lookup = ctypes.cast(ctypes.pythonapi.PyDict_GetItem, ctypes.c_void_p)
        self._arguments = (lookup, *arrays, self._count)
        library = attempt()
        self._look = None if isinstance(library, Unavailable) else library.wb_same

    def same(self) -> bool:
        """Whether under every name there is still the same object."""
        if self._look is not None:
            return bool(self._look(*self._arguments))
        return all(held.get(name) is it for held, name, it in zip(*self._held, strict=True))


class Ready(Protocol):
    """What a fast pass was made of."""

    def current(self) -> bool:
        """Whether it is still what the network is."""
        ...


class WatchedWalk(FusedWalk, ABC):
    """A pass made ready in advance, which steps aside while the network is not as it was then.

    ``ready`` is asked before every pass: where adapters, hooks or masks have changed a module or a
    weight, the pass is torch's, and it is made ready anew once things have settled. ``reason`` says
    why it is not in use.
    """

    most_rows = 0

    def __init__(self, anatomy: Anatomy):
        super().__init__(anatomy)
        self.reason = ""
        self._made: Any = None
        self._passes_waited = _SETTLED_PASSES

    def ready(self, rows: int) -> bool:
        """Whether a pass over so many rows can run this way."""
        if rows > self.most_rows:
            return False
        if self._made is not None and self._made.current():
            self._passes_waited = 0
            return True
        return self._renewed()

    @abstractmethod
    def _make(self) -> Ready:
        """Make ready.

        Raises:
            Unavailable: with the reason, where the network has a part that it cannot run.
        """

    def _renewed(self) -> bool:
        """Make ready anew once things have settled; the old is kept for when its parts return."""
        self._passes_waited += 1
        if self._passes_waited <= _SETTLED_PASSES:
            return False
        self._passes_waited = 0
        try:
            self._made, self.reason = self._make(), ""
        except Unavailable as problem:
            self.reason, self._passes_waited = str(problem), -_PATIENCE_PASSES
            return False
        return True

    def _try_soon(self) -> None:
        """A refusal or a change is looked into at the next pass."""
        self._passes_waited = _SETTLED_PASSES


def _append(columns: tuple[list, ...], row: tuple) -> None:
    for column, value in zip(columns, row, strict=True):
        column.append(value)
