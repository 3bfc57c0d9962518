"""The run-time type checker of the tests: beartype on whatever states a shape.

Functions without a shape are left alone: toy models stand in for sessions there on purpose, and
mypy reads the rest.
"""

from __future__ import annotations

from collections.abc import Callable

try:
    from beartype import BeartypeConf, beartype
except ModuleNotFoundError:  # a bare GPU machine: the tests run, their types unchecked
    beartype = None


def check(function: Callable) -> Callable:
    """``function``, checked at each call if one of its annotations is a jaxtyping one."""
    hints = getattr(function, "__annotations__", {}).values()
    states_a_shape = any(
        "torch.Tensor," in str(hint) or "jaxtyping" in repr(hint) for hint in hints
    )
    if beartype is None or not states_a_shape:
        return function
    return beartype(function, conf=BeartypeConf(is_pep484_tower=True))
