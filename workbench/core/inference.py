"""Torch's inference mode for code that a Ctrl-C may end at any moment."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch


class _InferenceMode(torch._C._InferenceMode):
    """Torch's guard with its own, compiled ``__enter__`` and ``__exit__``, and a use as decorator.

    ``torch.inference_mode`` is a Python class around this guard. An interrupt that lands in its
    Python ``__exit__`` leaves the mode on, or turns it on again when the traceback is freed after
    the outer guard has ended: the thread can then train nothing any more. The interpreter
    answers signals between instructions of Python only, so a compiled guard is entered and left
    whole.
    """

    def __init__(self, enabled: bool):
        super().__init__(enabled)
        self._enabled = enabled

    def __call__(self, function: Callable) -> Callable:
        if inspect.isgeneratorfunction(function):  # its body would run after the guard has ended
            raise TypeError(f"{function.__name__} is a generator; use the guard inside it")
        enabled = self._enabled

        @functools.wraps(function)
        def guarded(*args, **kwargs):
            with _InferenceMode(enabled):
                return function(*args, **kwargs)

        return guarded


def inference_mode(enabled: bool = True) -> _InferenceMode:
    """A guard like ``torch.inference_mode``, which an interrupt cannot leave half done.

    Args:
        enabled: False allows gradients again inside a guard.

    Example:
        >>> with inference_mode():
        ...     torch.is_inference_mode_enabled()
        True
        >>> torch.is_inference_mode_enabled()
        False
    """
    return _InferenceMode(enabled)
