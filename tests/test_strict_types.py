"""The type checker of the tests looks once at each kind of call, and misses nothing by that."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import strict_types
import torch
from jaxtyping import Float, TypeCheckError

strict = strict_types.once(typechecker=strict_types.check)
runs: list[object] = []


@strict
def grown(x: Float[torch.Tensor, "n"], by: list) -> Float[torch.Tensor, "n"]:
    runs.append(by)
    return torch.cat([x, *by])


@strict
def sized(x: Float[torch.Tensor, "n"], more: int) -> Float[torch.Tensor, "n"]:
    return torch.ones(len(x) + more)


@strict
def listed(rows: dict[str, Float[torch.Tensor, "n"]]) -> int:
    return len(rows)


@strict
def plain(x: int) -> int:
    return x


@strict
@dataclass
class Pair:
    one: Float[torch.Tensor, "n"]
    two: Float[torch.Tensor, "n"]


def test_a_bad_call_is_refused_however_many_good_ones_came_before():
    runs.clear()
    for size in (2, 3):
        for _ in range(3):
            assert len(grown(torch.ones(size), [])) == size
            with pytest.raises(TypeCheckError, match="return value"):
                grown(torch.ones(size), [torch.ones(1)])
            for x in (torch.ones(size, 1), torch.ones(size).long(), [1.0] * size):
                with pytest.raises(TypeCheckError, match="parameters"):
                    grown(x, [])
            with pytest.raises(TypeCheckError, match="parameters"):
                grown(torch.ones(size), by=None)
    assert len(runs) == 12, "a function runs once a call, and never on bad arguments"


def test_a_result_of_another_kind_is_looked_at():
    for _ in range(2):
        assert len(sized(torch.ones(2), 0)) == 2
        with pytest.raises(TypeCheckError, match="return value"):
            sized(torch.ones(2), 1)  # the arguments look like those of the call before


def test_fields_and_what_cannot_be_told_at_a_look():
    for _ in range(2):
        Pair(torch.ones(2), torch.ones(2))
        with pytest.raises(TypeCheckError):
            Pair(torch.ones(2), torch.ones(3))
        assert listed({"a": torch.ones(2)}) == 1
        with pytest.raises(TypeCheckError):
            listed({"a": torch.ones(2, 2)})
        with pytest.raises(TypeCheckError):
            listed({"a": torch.ones(2).long()})
    assert strict_types.kind([torch.ones(1)] * 99) is None, "too long for a look"
    assert strict_types.kind([1] * 99) == strict_types.kind([2] * 98), "one kind of long list"
    assert strict_types.kind([1] * 99) != strict_types.kind([1] * 98 + [1.0]), "one item differs"
    assert strict_types.kind([1] * 99) != strict_types.kind((1,) * 99)


@strict
def counted(ids: list[int], x: Float[torch.Tensor, "n"]) -> int:
    return len(ids)


def test_a_long_list_is_told_by_the_types_in_it():
    for wrong in (torch.ones(1), "1", None):
        assert counted([1] * 99, torch.ones(2)) == 99
        with pytest.raises(TypeCheckError):
            counted([wrong] * 99, torch.ones(2))


def test_an_inner_function_is_checked_each_time_it_is_defined():
    def outer(size):
        @strict
        def inner(x: Float[torch.Tensor, "n"]) -> Float[torch.Tensor, "n"]:
            return torch.ones(len(x) + size)

        return inner

    for _ in range(2):
        assert len(outer(0)(torch.ones(2))) == 2
        with pytest.raises(TypeCheckError, match="return value"):
            outer(1)(torch.ones(2))
        with pytest.raises(TypeCheckError, match="parameters"):
            outer(0)(torch.ones(2).long())


def test_what_states_no_shape_is_left_alone():
    assert not hasattr(plain, "__wrapped__") and plain("x") == "x"


def test_an_error_inside_passes_through():
    for _ in range(2):
        with pytest.raises(TypeError, match="expected Tensor"):
            grown(torch.ones(2), [1])
        assert len(grown(torch.ones(2), [])) == 2
