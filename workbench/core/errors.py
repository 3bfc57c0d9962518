"""The errors a user can cause. Each names the parameter, the value received and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorkbenchError(Exception):
    """Base of every error that is the input's fault; the command line turns it into exit code 2."""


class UnknownMethod(WorkbenchError, LookupError):
    """A method name that the registry does not hold."""


class BadKnob(WorkbenchError, ValueError):
    """A knob value of the wrong type or outside its range."""


class BadInput(WorkbenchError, ValueError):
    """A prompt, budget or sampling setting that cannot be used."""


class UndeclaredNeed(WorkbenchError, AttributeError):
    """A drafter read a context field that its ``needs`` do not declare."""


class ModelError(WorkbenchError, RuntimeError):
    """A checkpoint that cannot be loaded, rolled back or paired."""


class NotFinite(WorkbenchError, ArithmeticError):
    """NaN or infinite logits; the message names the first layer that produced one."""


class TraceError(WorkbenchError, ValueError):
    """A file that is not a readable trace."""


class Mismatch(WorkbenchError, TypeError):
    """A drafter and a verifier, or a draft and a target model, that do not fit together."""


def closest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def at_least(low: int, **values: int) -> None:
    """Refuse a count that is too small, by its name.

    Raises:
        BadInput: the first value below ``low``.
    """
    for name, value in values.items():
        if value < low:
            raise BadInput(f"{name}={value}: must be {low} or more")
