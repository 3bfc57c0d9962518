"""Blocks of a sweep on other processes or machines, through joblib's backends.

*Idea*: workers measure, the parent writes. A worker that dies (killed, out of memory) takes its
block with it; whatever was not received is sent again. A block that keeps killing workers is tried
alone, and if that kills one more it is given up with the reason.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any

from workbench.bench.measurement import Block, measure_block
from workbench.core.errors import BadInput, closest

BACKENDS = ("loky", "dask", "ray")
STRIKES = 3  # pools that may break in a row with nothing received


def run_block(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    """What a worker does: all of a block, its models kept for the next one."""
    return block, list(measure_block(block))


@contextmanager
def pool(backend: str, jobs: int, scheduler: str | None = None) -> Iterator[None]:
    """Within it, joblib runs on the backend.

    Args:
        scheduler: address of a running Dask scheduler or Ray head; without one, processes here.

    Raises:
        BadInput: an unknown backend, one whose library is missing, or a cluster out of reach.
    """
    joblib = _library("joblib", "bench")
    if backend not in BACKENDS:
        raise BadInput(
            f"backend={backend!r}: one of {', '.join(BACKENDS)}.{closest(backend, BACKENDS)}"
        )
    if scheduler and backend == "loky":
        raise BadInput(f"scheduler={scheduler!r}: loky has none; choose backend dask or ray")
    with ExitStack() as stack:
        if backend == "dask":
            distributed = _library("distributed", "cluster")
            stack.enter_context(_dask_client(distributed, jobs, scheduler))
        elif backend == "ray":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports home
            ray = _library("ray", "")
            ray.init(address=scheduler, num_cpus=None if scheduler else jobs)
            stack.callback(ray.shutdown)
            importlib.import_module("ray.util.joblib").register_ray()
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=jobs))
        yield


def _dask_client(distributed: Any, jobs: int, scheduler: str | None) -> Any:
    if scheduler is None:
        return distributed.Client(
            n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None
        )
    try:
        return distributed.Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"scheduler={scheduler!r} cannot be reached ({error}); start one with `dask scheduler`"
            " and give the address that it prints"
        ) from None


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        what = f"'draft-workbench[{extra}]'" if extra else name
        raise BadInput(f"this needs {name}, which is not installed: pip install {what}") from None


def _deaths() -> tuple[type[BaseException], ...]:
    """What joblib's backends raise when a worker is gone."""
    found: list[type[BaseException]] = [BrokenProcessPool]  # loky's is one of these
    for module, name in (
        ("distributed.scheduler", "KilledWorker"),
        ("distributed", "CancelledError"),
        ("ray.exceptions", "RayActorError"),
    ):
        if module in sys.modules and hasattr(sys.modules[module], name):
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def received(blocks: list[Block], jobs: int) -> Iterator[tuple[Block, list[dict[str, Any]]]]:
    """Blocks as they come back, in whatever order; only within :func:`pool`."""
    import joblib

    calls = [joblib.delayed(run_block)(block) for block in blocks]
    try:  # no more under way than there are workers, so that a death costs little
        parallel = joblib.Parallel(return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)
    except ValueError:  # a backend that gives results only all together (Ray's)
        with joblib.Parallel(batch_size=1) as together:  # one pool, so that models are kept
            for first in range(0, len(calls), jobs):
                yield from together(calls[first : first + jobs])
        return
    yield from parallel(calls)


def each_block(
    blocks: list[Block],
    jobs: int,
    told: Callable[[str], None] = lambda line: None,
    receive: Callable[..., Iterator[tuple[Block, list[dict[str, Any]]]]] = received,
) -> Iterator[tuple[Block, list[dict[str, Any]]]]:
    """Every block's records, through deaths of workers; only within :func:`pool`.

    Args:
        told: hears of each death.
    """
    left = {(b.repeat, b.cells[0].id, b.prompts[0][0]): b for b in blocks}
    strikes = 0
    while left:
        alone = strikes >= STRIKES
        sent = list(left.values())[: 1 if alone else None]
        try:
            with warnings.catch_warnings():  # the pool's own word about a death; ours follows
                warnings.simplefilter("ignore", UserWarning)
                for block, records in receive(sent, 1 if alone else jobs):
                    del left[(block.repeat, block.cells[0].id, block.prompts[0][0])]
                    strikes = strikes if alone else 0
                    yield block, records
        except _deaths() as error:
            strikes += 1
            told(f"a worker died ({type(error).__name__}); {len(left)} blocks are sent again")
            if alone:
                block = sent[0]
                del left[(block.repeat, block.cells[0].id, block.prompts[0][0])]
                yield block, given_up(block)


def given_up(block: Block) -> list[dict[str, Any]]:
    """Records of a block that killed every worker that took it."""
    reason = f"its worker died {STRIKES + 1} times (killed, or out of memory)"
    return [
        block.record(cell, prompt, "failed", error=reason)
        for _, prompt in block.prompts
        for cell in block.cells
        if (cell.id, prompt.name) in block.pending
    ]
