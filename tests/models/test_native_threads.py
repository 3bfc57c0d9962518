"""Threads of the kernel give the numbers of one, whoever calls, from wherever, and after a fork."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest
import torch

from workbench.models.native import build, packed
from workbench.models.native.panels import packed_matrix

pytestmark = pytest.mark.skipif(
    build.compiler() is None, reason="no C++ compiler here, so passes run on torch alone"
)
ROWS, INPUTS, OUTPUTS = 3, 40, 1000


@pytest.fixture(scope="module")
def multiply():
    """``multiply(x, threads)`` with one fixed matrix."""
    weight = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(5))
    matrix, panels = packed_matrix(weight)

    def product(x: torch.Tensor, threads: int) -> torch.Tensor:
        assert panels.numel() >= weight.numel()
        out = torch.full((ROWS, OUTPUTS), float("nan"))
        build.kernel().wb_multiply(
            packed.address(matrix), x.data_ptr(), ROWS, threads, out.data_ptr()
        )
        return out

    return product


def some_rows(seed: int) -> torch.Tensor:
    return torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threads", [2, 3, 7, 200])
def test_any_number_of_threads_gives_the_numbers_of_one(multiply, threads):
    for seed in range(50):
        x = some_rows(seed)
        assert torch.equal(multiply(x, threads), multiply(x, 1))


def test_callers_in_threads_of_their_own_do_not_disturb_each_other(multiply):
    wanted = [multiply(some_rows(seed), 1) for seed in range(8)]
    wrong: list[int] = []

    def call(seed: int) -> None:
        x = some_rows(seed)
        for turn in range(300):
            if not torch.equal(multiply(x, 2 + turn % 3), wanted[seed]):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers), "somebody waits for ever"
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_helpers_of_its_own(multiply):
    x = some_rows(1)
    wanted = multiply(x, 2)  # there are helpers by now, which a fork leaves behind
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # who waits for a helper that is not there ends here
        same = all(torch.equal(multiply(x, 2), wanted) for _ in range(50))
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells what is blocked")
def test_helpers_leave_signals_to_the_threads_that_were_there(multiply):
    multiply(some_rows(1), 4)
    told = [task.read_text() for task in Path("/proc/self/task").glob("*/status")]
    blocked = [int(re.search(r"SigBlk:\s*([0-9a-f]+)", one)[1], 16) for one in told]
    interrupt = 1 << (signal.SIGINT - 1)
    assert sum(bool(mask & interrupt) for mask in blocked) >= 3, "helpers would be interrupted"
    assert not all(mask & interrupt for mask in blocked), "nobody is left to hear it"
