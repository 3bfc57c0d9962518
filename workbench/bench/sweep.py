"""A grid measured to the end, whatever comes between: kill it, start it again, it goes on.

*Idea*: the sweep is an iterator of progress; not calling ``next`` is a pause, closing it a stop.
What is measured is on the disk (:mod:`workbench.bench.journal`) before progress is told.

Example:
    >>> for seen in Sweep(Grid(open_prompts("zoo:code")), "runs/first").steps():
    ...     print(seen.done, seen.total, seen.eta_s)
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.bench.grid import Cell, Grid, Refusal
from workbench.bench.journal import Journal
from workbench.bench.machine import this_machine
from workbench.bench.measurement import Block, measure_block
from workbench.bench.workers import each_block, pool
from workbench.core.errors import BadInput

Key = tuple[str, str, int]  # cell id, prompt name, repeat


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is.

    Args:
        done: measurements settled (measured, failed, or of a cell that cannot run), of ``total``.
        eta_s: seconds left at the speed of each cell so far; None = unknown.
        failed: measurements that ended in an error.
        line: what was settled last, or what happened.
    """

    done: int
    total: int
    eta_s: float | None
    failed: int
    line: str


class Sweep:
    """The measurements of a grid in a folder.

    Args:
        jobs: processes that measure side by side; 1 = this one. Times of processes that share a
            machine disturb each other; ratios within a block still compare neighbours.
        backend, scheduler: see :func:`workbench.bench.workers.pool`; used with 2 jobs or more, or
            where a scheduler is given.
        retry_failed: measure again what ended in an error before.

    Raises:
        BadInput: a folder of another grid, or in use.
    """

    def __init__(
        self,
        grid: Grid,
        folder: str | Path,
        *,
        jobs: int = 1,
        backend: str = "loky",
        scheduler: str | None = None,
        retry_failed: bool = False,
    ):
        if jobs < 1:
            raise BadInput(f"jobs={jobs}: must be 1 or more")
        self.grid, self.jobs = grid, jobs
        self.backend, self.scheduler = backend, scheduler
        self.cells, self._static = grid.expanded()
        self.session = uuid.uuid4().hex[:8]
        about = {
            "session": self.session,
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": this_machine(),
            "jobs": jobs,
            "backend": backend if jobs > 1 or scheduler else "this process",
        }
        self.journal = Journal(folder, grid.to_json(), about)
        self._spent: dict[str, list[float]] = {}
        self._left: dict[str, int] = {}  # cell id -> measurements still to come
        self._settled: dict[Key, str] = {}
        self._refused: dict[str, str] = {}
        for record in self.journal.records:
            self._settle(record)
        if retry_failed:
            self._settled = {k: s for k, s in self._settled.items() if s != "failed"}
        every = len(grid.prompts.prompts) * grid.repeats
        self._total = len(self.cells) * every
        self._left = {cell.id: 0 if cell.id in self._refused else every for cell in self.cells}
        for cell_id, _, _ in self._settled:
            self._left[cell_id] = max(0, self._left[cell_id] - 1)

    # ---- reading, at any time --------------------------------------------------------------------

    @property
    def records(self) -> list[dict[str, Any]]:
        """Everything measured so far, of earlier sessions too."""
        return list(self.journal.records)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Combinations that cannot run, found before or while measuring."""
        labels = {cell.id: f"{cell.label} ({cell.place})" for cell in self.cells}
        met = tuple(Refusal(labels[i], why, i) for i, why in self._refused.items() if i in labels)
        return (*self._static, *met)

    def progress(self, line: str = "") -> SweepProgress:
        """Where it stands."""
        left, failed = sum(self._left.values()), sum(s == "failed" for s in self._settled.values())
        return SweepProgress(self._total - left, self._total, self._eta_s(), failed, line)

    def blocks(self) -> list[Block]:
        """What is left to measure, in the order in which it is measured."""
        places = list(enumerate(self.grid.prompts.prompts))
        rows = [tuple(places)] if self.grid.setting.carry else [(pair,) for pair in places]
        groups: dict[Any, list[Cell]] = {}
        for cell in self.cells:
            if cell.id not in self._refused:
                groups.setdefault(cell.group, []).append(cell)
        found = []
        for repeat in range(self.grid.repeats):
            for prompts in rows:
                for cells in groups.values():
                    pending = frozenset(
                        (cell.id, prompt.name)
                        for cell in cells
                        for _, prompt in prompts
                        if (cell.id, prompt.name, repeat) not in self._settled
                    )
                    if pending:
                        setting = self.grid.setting
                        block = (setting, tuple(cells), prompts, repeat, pending, self.session)
                        found.append(Block(*block))
        return found

    # ---- measuring -------------------------------------------------------------------------------

    def steps(self) -> Generator[SweepProgress, None, None]:
        """Measure what is left; one step a measurement (or a word about a worker that died).

        Raises:
            JournalFull: no room for the next measurement; those before are kept.
        """
        if self.jobs == 1 and self.scheduler is None:
            for block in self.blocks():
                for record in filter(self._is_news, measure_block(block)):
                    yield self._keep(record)
            return
        told: list[str] = []
        with pool(self.backend, self.jobs, self.scheduler):
            for _, records in each_block(self.blocks(), self.jobs, told.append):
                while told:
                    yield self.progress(told.pop(0))
                for record in filter(self._is_news, records):
                    yield self._keep(record)

    def close(self) -> None:
        """Let another process have the folder."""
        self.journal.close()

    def _is_news(self, record: dict[str, Any]) -> bool:
        """Whether it says more than that a cell cannot run, once more."""
        return record["state"] != "refused" or record["cell"] not in self._refused

    def _keep(self, record: dict[str, Any]) -> SweepProgress:
        self.journal.append(record)
        self._settle(record)
        label = next((c.label for c in self.cells if c.id == record["cell"]), record["cell"])
        said = f"{label} on {record['prompt']}, repeat {record['repeat'] + 1}: {record['state']}"
        return self.progress(f"{said} ({record['error']})" if "error" in record else said)

    def _settle(self, record: dict[str, Any]) -> None:
        cell, state = record["cell"], record["state"]
        if state == "refused":
            self._refused.setdefault(cell, record["error"])
            self._left[cell] = 0
        elif state != "again":
            key = (cell, record["prompt"], record["repeat"])
            self._left[cell] = self._left.get(cell, 0) - (key not in self._settled)
            self._settled[key] = state
        if "spent_s" in record:
            self._spent.setdefault(cell, []).append(record["spent_s"])

    def _eta_s(self) -> float | None:
        left = {cell: count for cell, count in self._left.items() if count > 0}
        if not left:
            return 0.0
        if not self._spent:
            return None
        means = {cell: sum(spent) / len(spent) for cell, spent in self._spent.items()}
        typical = sum(means.values()) / len(means)
        total = sum(count * means.get(cell, typical) for cell, count in left.items())
        return total / self.jobs
