"""Files of what the arena shows: its tables, each picture as SVG, as a page and as its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widgets.figures import arena_charts, curves, export, heat, pareto, ranked_bars
from widgets.labs.arena import pictures, screen
from widgets.labs.arena.results import Results
from workbench.bench import summary
from workbench.bench.journal import read_manifest, read_records
from workbench.core.errors import BadInput

if TYPE_CHECKING:
    from widgets.labs.arena.controller import ArenaLab


def of(lab: ArenaLab) -> dict[str, bytes]:
    """Name -> bytes of what the lab shows.

    Raises:
        BadInput: there is nothing of one's own yet.
    """
    if lab.show == "arena" and lab.results is not None:
        return arena(lab.results)
    if lab.show == "cost" and lab.report is not None:
        sizes = table([asdict(row) for row in lab.report.rows])
        return {"sizes.csv": sizes, **figures(pictures.cost_infos(lab.report))}
    if lab.show == "tune" and lab.trials:
        return {"trials.csv": table(lab.trials)}
    if lab.show == "elsewhere":
        found = screen.predicted(lab)
        return figures(pictures.elsewhere_infos(found.here, found.places))
    raise BadInput("nothing is measured yet; press Start first")


def arena(results: Results) -> dict[str, bytes]:
    """Name -> bytes: summary as CSV, measurements as parquet, four pictures."""
    table = [
        {key: json.dumps(v) if isinstance(v, list | dict) else v for key, v in row.items()}
        for row in results.table
    ]
    folder = Path(results.folder)
    cells, records = read_manifest(folder)["grid"]["cells"], read_records(folder)
    charts = {
        "ranking": (ranked_bars, arena_charts.ranking(results.table)),
        "by-kind": (heat, arena_charts.by_task(results.by_kind, results.table)),
        "acceptance-by-depth": (curves, arena_charts.acceptance_by_depth(results.table)),
        "speed-and-likelihood": (pareto, arena_charts.speed_and_quality(results.table)),
    }
    return {
        "summary.csv": export.to_csv(table).encode(),
        "measurements.parquet": summary.to_parquet_bytes(records, cells),
        **figures(charts),
    }


def figures(infos: Mapping[str, tuple[Any, Any]]) -> dict[str, bytes]:
    """SVG, page and data of each picture."""
    made = {}
    for name, (module, info) in infos.items():
        made[f"{name}.svg"] = module.svg(info, 640).encode()
        made[f"{name}.html"] = export.to_html(module.figure(info)).encode()
        made[f"{name}.csv"] = export.to_csv(module.rows(info)).encode()
    return made


def table(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows that may differ in their columns, as CSV."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return export.to_csv([{name: row.get(name) for name in names} for row in rows]).encode()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write them into a folder, which is made where it is missing.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise BadInput(
            f"folder={str(folder)!r} cannot be written ({error.strerror}); name another"
        ) from None
    return folder
