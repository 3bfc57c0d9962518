"""Tables of an arena: ratios to plain decoding, the four acceptances by name, quality, positions.

*Idea*: a ratio is taken for each prompt and repeat between neighbours of one session, and then
bootstrapped; counts are summed before they are divided, so that long rounds weigh what they are.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from workbench.bench.peers import interval

Record = dict[str, Any]
COUNTS = (
    *("tokens", "rounds", "accepted_tokens", "drafted_levels", "drafted_nodes"),
    *("expected_tokens", "realised_tokens", "target_forwards", "draft_forwards"),
)
BESIDE = 0.3  # of a measurement's time that other threads of its process may work


def newest(records: Iterable[Record]) -> list[Record]:
    """One record for each cell, prompt and repeat: the last; ``again`` records stay beside."""
    kept = {}
    for record in records:
        session = record["session"] if record["state"] == "again" else ""
        kept[record["cell"], record["prompt"], record["repeat"], session] = record
    return list(kept.values())


def plain_times(records: list[Record], plain: set[str]) -> dict[tuple, Record]:
    """Plain decoding by group-free key: (plain cell, prompt, repeat, session)."""
    return {
        (r["cell"], r["prompt"], r["repeat"], r["session"]): r
        for r in records
        if r["cell"] in plain and r["state"] in ("done", "again")
    }


def plain_of(cells: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The baseline of every cell: plain decoding of the same target and sampling."""

    def group(cell: dict[str, Any]) -> tuple:
        return cell["target"], tuple(sorted(cell["sampling"].items()))

    plains = {group(c): i for i, c in cells.items() if c["drafter"]["name"] == "none"}
    return {i: plains[group(c)] for i, c in cells.items() if group(c) in plains}


def paired(records: list[Record], cells: dict[str, dict[str, Any]]) -> list[Record]:
    """Every finished measurement with its ratios to plain decoding beside it (None = none there).

    Adds ``tokens_per_s``, ``ratio``, ``cpu_ratio``, ``log_likelihood_gain`` and ``same_tokens``.
    """
    records, base = newest(records), plain_of(cells)
    times = plain_times(records, set(base.values()))
    found = []
    for record in records:
        if record["state"] != "done" or not record["wall_s"]:
            continue
        key = (base.get(record["cell"]), record["prompt"], record["repeat"], record["session"])
        plain = times.get(key)
        rate = record["tokens"] / record["wall_s"]
        row = {**record, "tokens_per_s": rate, "ratio": None, "cpu_ratio": None}
        row |= {"log_likelihood_gain": None, "same_tokens": None}
        if plain is not None:
            row["ratio"] = rate / (plain["tokens"] / plain["wall_s"])
            spent, before = record["cpu_s"] / record["tokens"], plain["cpu_s"] / plain["tokens"]
            row["cpu_ratio"] = spent / before if before else None
            row["same_tokens"] = record["text_tokens"] == plain["text_tokens"]
            if None not in (record["log_likelihood"], plain["log_likelihood"]):
                row["log_likelihood_gain"] = record["log_likelihood"] - plain["log_likelihood"]
        found.append(row)
    return found


def summarise(
    records: list[Record], cells: dict[str, dict[str, Any]], labels: dict[str, str]
) -> list[dict[str, Any]]:
    """One row a cell that has measurements, fastest ratio first within target and sampling."""
    rows = paired(records, cells)
    failed = [r for r in newest(records) if r["state"] == "failed"]
    table = []
    for cell_id, cell in cells.items():
        mine = [r for r in rows if r["cell"] == cell_id]
        errors = [r["error"] for r in failed if r["cell"] == cell_id]
        if mine or errors:
            head = {"cell": cell_id, "target": cell["target"], "label": labels[cell_id]}
            head["temperature"] = cell["sampling"]["temperature"]
            table.append({**head, **_measured(mine), "failed": len(errors), "errors": errors[:1]})
    return sorted(table, key=lambda r: (r["target"], r["temperature"], -(r["ratio"] or 0.0)))


def _measured(mine: list[Record]) -> dict[str, Any]:
    totals = {name: sum(r[name] for r in mine) for name in COUNTS}
    ratios = [r["ratio"] for r in mine if r["ratio"] is not None]
    cpu = [r["cpu_ratio"] for r in mine if r["cpu_ratio"] is not None]
    same = [r["same_tokens"] for r in mine if r["same_tokens"] is not None]
    rounds = totals["rounds"]
    return {
        "measurements": len(mine),
        "paired": len(ratios),
        "disturbed": sum((r.get("beside_s") or 0.0) > BESIDE * r["wall_s"] for r in mine),
        "tokens_per_s": _median([r["tokens_per_s"] for r in mine]),
        "ratio": _median(ratios),
        "ratio_interval": interval(ratios) if ratios else None,
        "cpu_per_token_ratio": _median(cpu),
        "mean_accepted": _share(totals["accepted_tokens"], rounds),
        "mean_emitted": _share(totals["tokens"], rounds),
        "acceptance_ratio": _share(totals["accepted_tokens"], totals["drafted_levels"]),
        "node_ratio": _share(totals["accepted_tokens"], totals["drafted_nodes"]),
        "expected_emitted": _share(totals["expected_tokens"], rounds),
        "realised_emitted": _share(totals["realised_tokens"], rounds),
        "target_forwards_per_token": _share(totals["target_forwards"], totals["tokens"]),
        "draft_forwards_per_token": _share(totals["draft_forwards"], totals["tokens"]),
        "outside_forward_ratio": _mean([r["outside_forward_ratio"] for r in mine]),
        "transfer_ms_per_round": _share(sum(r.get("transfer_ms", 0.0) for r in mine), rounds),
        "transfer_bytes_per_round": _share(sum(r.get("transfer_bytes", 0) for r in mine), rounds),
        "repeated_4gram_ratio": _mean([r["repeated_4gram_ratio"] for r in mine]),
        "log_likelihood": _mean([r["log_likelihood"] for r in mine]),
        "log_likelihood_gain": _mean([r["log_likelihood_gain"] for r in mine]),
        "lossless": all(r["lossless"] for r in mine) if mine else None,
        "same_tokens": f"{sum(same)}/{len(same)}" if same else None,
        "position_acceptance": position_acceptance(mine),
    }


def position_acceptance(rows: list[Record]) -> list[float | None]:
    """Share kept of the tokens tried at each depth of the path, over all rounds."""
    deepest = max((len(r["tried_at_depth"]) for r in rows), default=0)
    shares = []
    for depth in range(deepest):
        here = [r for r in rows if depth < len(r["tried_at_depth"])]
        kept = sum(r["kept_at_depth"][depth] for r in here)
        shares.append(_share(kept, sum(r["tried_at_depth"][depth] for r in here)))
    return shares


def by_kind(
    records: list[Record], cells: dict[str, dict[str, Any]]
) -> dict[tuple[str, str], tuple[float, list[float]]]:
    """Median ratio and its interval for each (cell, kind of prompt)."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in paired(records, cells):
        if row["ratio"] is not None:
            groups.setdefault((row["cell"], row["kind"]), []).append(row["ratio"])
    return {key: (statistics.median(found), interval(found)) for key, found in groups.items()}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def to_parquet_bytes(records: list[Record], cells: dict[str, dict[str, Any]]) -> bytes:
    """Every measurement with its ratios and its configuration as parquet (pandas, pyarrow)."""
    import io

    import pandas

    rows = []
    extra = [r for r in newest(records) if r["state"] in ("failed", "refused")]
    for row in [*paired(records, cells), *extra]:
        cell = cells[row["cell"]]
        methods = {f: cell[f]["name"] for f in ("drafter", "verifier", "policy", "schedule")}
        said = {f"{f}_knobs": str(cell[f]["knobs"]) for f in methods}
        about = {"target": cell["target"], "draft": cell["draft"], **methods, **said}
        rows.append({**about, **cell["sampling"], **row})
    buffer = io.BytesIO()
    pandas.DataFrame(rows).to_parquet(buffer)
    return buffer.getvalue()
