"""The run-time type checker of the tests: beartype on whatever states a shape.

Functions without a shape are left alone: toy models stand in for sessions there on purpose, and
mypy reads the rest. A check looks at types, dtypes and shapes only, so it is made once for each
combination of them: a call like one that has passed is not looked at again. (Every call of every
function, as jaxtyping's own hook does it, was two thirds of the time that the tests took.)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
import numpy as np
import torch

try:
    from beartype import BeartypeConf, beartype
except ModuleNotFoundError:  # a bare GPU machine: the tests run, their types unchecked
    beartype = None

LONGEST = 16  # items of a tuple or list, letters of a text, that a kind tells apart
PLAIN = frozenset({int, float, bool, type(None)})  # whose type is all that a check can see
LOOKS: dict[type, Callable] = {}  # how the kind of a value of this type is told
SHAPELESS: set[CodeType] = set()
PASSED: dict[CodeType, dict[Any, set]] = {}
every_call = jaxtyping.jaxtyped


def check(function: Callable) -> Callable:
    """``function``, checked at each call if one of its annotations is a jaxtyping one."""
    hints = getattr(function, "__annotations__", {}).values()
    states_a_shape = any(
        "torch.Tensor," in str(hint) or "jaxtyping" in repr(hint) for hint in hints
    )
    if beartype is None or not states_a_shape:
        return function
    return beartype(function, conf=BeartypeConf(is_pep484_tower=True))


def install() -> None:
    """Let jaxtyping's import hook, which asks for ``jaxtyping.jaxtyped``, use ``once``."""
    jaxtyping.jaxtyped = once


def once(subject: Any = None, *, typechecker: Callable) -> Any:
    """``jaxtyped``, sparing: nothing around what states no shape, no second look at the same kind.

    Args:
        subject: a function, or a class whose fields are checked if it is a dataclass.
    """
    if subject is None:
        return functools.partial(once, typechecker=typechecker)
    if inspect.isclass(subject):
        if dataclasses.is_dataclass(subject) and "__init__" in vars(subject):
            subject.__init__ = _spared(subject.__init__, typechecker)
        return subject
    return _spared(subject, typechecker)


def _spared(function: Callable, typechecker: Callable) -> Callable:
    code = function.__code__  # the same each time that an inner function is defined
    if code in SHAPELESS:
        return function
    first = code not in PASSED
    passed = PASSED.setdefault(code, {})  # kinds of arguments: kinds of results that they gave
    given = threading.local()

    @functools.cache
    def checkers() -> tuple[Callable, Callable] | None:
        return _checkers(function, typechecker, given)

    if first and checkers() is None:
        del PASSED[code]
        SHAPELESS.add(code)
        return function

    @functools.wraps(function)
    def called(*args: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        kinds = kind(args) if not named else kind((*args, *named.items()))
        known = passed.get(kinds)
        if known is None:
            value = checkers()[0](*args, **named)
            if kinds is not None:
                passed[kinds] = {kind(value)} - {None}
            return value
        value = function(*args, **named)
        kind_of_value = kind(value)
        if kind_of_value not in known:
            given.result = value
            checkers()[1](*args, **named)
            if kind_of_value is not None:
                known.add(kind_of_value)
        return value

    return called


def _checkers(function: Callable, typechecker: Callable, given: Any) -> tuple | None:
    """``function`` with every check, and a twin that checks ``given.result``; None: no shapes."""
    looked = []

    def noted(stated: Callable) -> Callable:
        checked = typechecker(stated)
        looked.append(checked is not stated)
        return checked

    whole = every_call(function, typechecker=noted)
    if not any(looked):
        return None

    def result(*_: Any, **__: Any) -> Any:
        return given.result

    # With the names that the annotations of ``function`` are written in; unknown ones are Any.
    twin = FunctionType(result.__code__, function.__globals__, closure=result.__closure__)
    return whole, every_call(functools.update_wrapper(twin, function), typechecker=typechecker)


def kind(value: Any) -> Any:
    """All that a check can see of ``value``; None where that is not one look (a set)."""
    sort = type(value)
    if sort in PLAIN:
        return sort
    look = LOOKS.get(sort) or LOOKS.setdefault(sort, _look_at(sort))
    return look(value, sort)


def _look_at(sort: type) -> Callable[[Any, type], Any]:
    """How the kind of a value of this type is told."""
    if issubclass(sort, torch.Tensor | np.ndarray):
        return lambda value, sort: (sort, value.dtype, tuple(value.shape))
    if sort is str:
        return lambda value, sort: (sort, value[:LONGEST])  # a literal may be asked for
    if issubclass(sort, tuple | list):
        return _items
    if sort is dict:
        return _entries
    if issubclass(sort, dict | set | frozenset):
        return lambda value, sort: None
    return lambda value, sort: sort


def _items(value: Any, sort: type) -> Any:
    if len(value) > LONGEST:  # no check counts so many, so the types that occur are all there is
        sorts = frozenset(map(type, value))
        return (sort, sorts) if sorts <= PLAIN else None
    kinds = tuple(map(kind, value))
    return None if None in kinds else (sort, kinds)


def _entries(value: dict, sort: type) -> Any:
    if len(value) > LONGEST:
        return None
    keys, values = _items(tuple(value), tuple), _items(tuple(value.values()), tuple)
    return None if None in (keys, values) else (sort, keys, values)
