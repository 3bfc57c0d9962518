"""Threads are chosen by measurement, and set to nothing that the machine does not have."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput
from workbench.models import threads


@pytest.fixture(autouse=True)
def one_thread_afterwards():
    yield
    torch.set_num_threads(1)


def test_candidates_are_powers_of_two_and_all_cores():
    assert threads.candidates(1) == [1]
    assert threads.candidates(6) == [1, 2, 4, 6]
    assert threads.candidates(8) == [1, 2, 4, 8]


def test_the_measurement_leaves_the_number_as_it_was(loaded):
    spent = threads.pass_ms(loaded("llama"), [1, 2], rows=(1,), repeats=1)
    assert set(spent) == {1, 2}
    assert all(value > 0 for value in spent.values())
    assert torch.get_num_threads() == 1


def test_auto_takes_the_fastest(loaded, monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "pass_ms", lambda model, counts: {1: 3.0, 2: 2.0})
    assert threads.set_threads("auto", loaded("llama")) == torch.get_num_threads() == 2


@pytest.mark.parametrize("wanted", ["0", 0, -1, "many", None, 10**6])
def test_a_number_that_is_none_or_not_there(wanted):
    with pytest.raises(BadInput, match="threads="):
        threads.set_threads(wanted)
    assert torch.get_num_threads() == 1
