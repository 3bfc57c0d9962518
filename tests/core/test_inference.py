"""The mode of inference is off again after an interrupt at any moment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest
import torch

from workbench.core import inference
from workbench.core.inference import inference_mode

GUARDS = {inference.__file__, torch.autograd.grad_mode.__file__}


class InterruptAt:
    """Raises KeyboardInterrupt where the n-th Python function of a guard begins.

    Signals are answered there, among other places; never inside compiled functions.
    """

    def __init__(self, call: int):
        self.left = call

    def __enter__(self) -> None:
        sys.settrace(self._called)

    def __exit__(self, *error) -> None:
        sys.settrace(None)

    def _called(self, frame, event, arg) -> None:
        if event == "call" and frame.f_code.co_filename in GUARDS:
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt


def nested(mode: Callable) -> Callable:
    """A guarded function inside another, as a session's pass is inside a drafter's proposal."""

    @mode()
    def inner(x: torch.Tensor) -> torch.Tensor:
        with mode(False):
            pass
        return x * 2

    @mode()
    def outer(x: torch.Tensor) -> torch.Tensor:
        with mode():
            return inner(x) + 1

    return outer


def interrupted(work: Callable, call: int) -> bool | None:
    """Whether the interrupted thread stays in the mode; None where it was not interrupted."""
    found: list[bool | None] = []

    def worker() -> None:
        try:
            with InterruptAt(call):
                work(torch.ones(2))
            found.append(None)
        except KeyboardInterrupt:
            pass
        if not found:  # the traceback is gone by now, as it is at a person's next command
            found.append(torch.is_inference_mode_enabled() or not torch.is_grad_enabled())

    thread = threading.Thread(target=worker)  # the mode, and what is left of it, ends with it
    thread.start()
    thread.join()
    return found[0]


def calls_that_leave_it_on(mode: Callable) -> list[int]:
    work, bad = nested(mode), []
    for call in range(200):
        stays = interrupted(work, call)
        if stays is None:
            assert call > 5, "nothing was interrupted"
            return bad
        if stays:
            bad.append(call)
    raise AssertionError("never came to its end")


def test_an_interrupt_never_leaves_it_on():
    assert calls_that_leave_it_on(inference_mode) == []


def test_torchs_own_is_left_on():
    """What the one above protects from; were torch to mend it, ours could go."""
    assert calls_that_leave_it_on(torch.inference_mode) != []


@pytest.mark.parametrize("as_decorator", [False, True])
def test_it_is_torchs_mode(as_decorator):
    def made() -> torch.Tensor:
        return torch.ones(2)

    if as_decorator:
        x = inference_mode()(made)()
    else:
        with inference_mode():
            assert torch.is_inference_mode_enabled()
            x = made()
            with inference_mode(False):
                assert not made().is_inference()
            assert torch.is_inference_mode_enabled()
    assert x.is_inference()
    assert not torch.is_inference_mode_enabled()
    assert not made().is_inference()


def test_a_decorated_function_keeps_its_name_and_can_call_itself():
    @inference_mode()
    def depth(n: int) -> int:
        """How deep."""
        return n and 1 + depth(n - 1)

    assert (depth(5), depth.__name__, depth.__doc__) == (5, "depth", "How deep.")
    assert not torch.is_inference_mode_enabled()


def test_an_error_inside_ends_it():
    with pytest.raises(ValueError), inference_mode():
        raise ValueError
    assert not torch.is_inference_mode_enabled()


def test_a_generator_is_refused_as_its_body_would_run_without_it():
    def numbers():
        yield torch.ones(1)

    with pytest.raises(TypeError, match="numbers is a generator"):
        inference_mode()(numbers)
