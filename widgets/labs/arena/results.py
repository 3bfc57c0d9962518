"""What the arena shows of a sweep: a value without any model, as it is recorded and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from workbench.bench import summary
from workbench.bench.arena import Arena
from workbench.bench.grid import cell_from_json
from workbench.bench.journal import read_manifest, read_records
from workbench.bench.machine import words

Row = dict[str, Any]


class Kind(msgspec.Struct, frozen=True):
    """Speed of a cell on one kind of prompt, with its interval."""

    cell: str
    kind: str
    ratio: float
    interval: tuple[float, float]


class Results(msgspec.Struct, frozen=True):
    """A table and what has to be said beside it.

    Args:
        table: see :func:`workbench.bench.summary.summarise`.
        refused: label and reason of what cannot run.
        said: where it comes from.
    """

    table: list[Row]
    kinds: list[Kind]
    refused: list[dict[str, str]]
    done: int
    total: int
    prompts: Row
    repeats: int
    setting: Row
    machine: str
    folder: str
    skipped: list[str] = []
    said: str = ""

    @property
    def by_kind(self) -> dict[tuple[str, str], tuple[float, list[float]]]:
        """As the pictures take it."""
        return {(one.cell, one.kind): (one.ratio, list(one.interval)) for one in self.kinds}

    def row(self, cell: str) -> Row | None:
        """The row of a cell."""
        return next((row for row in self.table if row["cell"] == cell), None)


def _kinds(records: list[Row], cells: dict[str, Row]) -> list[Kind]:
    found = summary.by_kind(records, cells)
    return [Kind(*key, ratio, (ends[0], ends[1])) for key, (ratio, ends) in found.items()]


def of_arena(arena: Arena) -> Results:
    """Of a sweep that this process measures."""
    told = arena.report()
    cells = {cell.id: cell.to_json() for cell in arena.sweep.cells}
    return Results(
        told["table"],
        _kinds(arena.sweep.records, cells),
        told["refused"],
        told["done"],
        told["total"],
        told["prompts"],
        told["repeats"],
        told["setting"],
        words(told["sessions"][-1]["machine"]),
        told["folder"],
        told["skipped_lines"],
    )


def of_folder(folder: Path) -> Results:
    """Of a sweep on the disk, whoever measures it; nothing is changed.

    Raises:
        BadInput: not a folder of a sweep.
    """
    manifest, records = read_manifest(folder), read_records(folder)
    grid = manifest["grid"]
    cells = grid["cells"]
    labels = {name: cell_from_json(cell).label for name, cell in cells.items()}
    refused = {r["cell"]: r["error"] for r in records if r["state"] == "refused"}
    settled = {(r["cell"], r["prompt"], r["repeat"]) for r in records
               if r["state"] in ("done", "failed")}  # fmt: skip
    each = grid["prompts"]["count"] * grid["repeats"]
    return Results(
        summary.summarise(records, cells, labels),
        _kinds(records, cells),
        [{"label": labels[cell], "reason": why} for cell, why in refused.items()],
        len(settled) + each * len(refused),
        each * len(cells),
        grid["prompts"],
        grid["repeats"],
        grid["setting"],
        words(manifest["sessions"][-1]["machine"]) if manifest["sessions"] else "?",
        str(folder),
    )
