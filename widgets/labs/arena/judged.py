"""What an arena's numbers say, in words: which draft to use, or that none pays."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

Row = dict[str, Any]


def ratio(row: Row) -> str:
    """``1.43 [1.38, 1.50]``."""
    if row["ratio"] is None:
        return "–"
    low, high = row["ratio_interval"]
    return f"{row['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def leading(table: Sequence[Row]) -> str:
    """Id of the fastest lossless draft, else of the fastest row; empty = none is measured."""
    timed = sorted((row for row in table if row["ratio"]), key=lambda row: -row["ratio"])
    drafts = [row for row in timed if row["lossless"] and row["label"] != "plain"]
    return next((row["cell"] for row in (*drafts, *timed)), "")


def verdict(table: Sequence[Row], source: str = "") -> str:
    """What the numbers say about each target and temperature, in words; ``source`` = not here."""
    groups: dict[tuple, list[Row]] = {}
    for row in table:
        if row["ratio"] and row["label"] != "plain":
            groups.setdefault((row["target"], row["temperature"]), []).append(row)
    lines = []
    for (target, temperature), rows in groups.items():
        where = f"{target} at temperature {temperature:g}" if len(groups) > 1 else ""
        about = ", ".join(filter(None, (source, where)))
        lines.append(f"{about[:1].upper()}{about[1:]}: {_judged(rows)}" if about else _judged(rows))
    return "".join(f'<p class="dw-why" data-verdict="1">{escape(line)}</p>' for line in lines[:4])


def _judged(rows: list[Row]) -> str:
    """One sentence on lossless drafts, and one more where a lossy rule is faster."""
    exact = [row for row in rows if row["lossless"]]
    if not exact:
        return "No lossless configuration is measured: every one here changes the text."
    best = next(row for row in exact if row["cell"] == leading(exact))
    name, (low, high) = best["label"], best["ratio_interval"]
    if low > 1:
        said = f"Fastest without changing the text: {name}, {ratio(best)} times plain decoding."
    elif high < 1:
        said = f"Decode plainly: the best lossless draft, {name}, is slower, {ratio(best)} times."
    else:
        said = (
            f"No lossless draft is shown to be faster than plain decoding; the nearest, {name},"
            f" has {ratio(best)} with 1 inside. More prompts or repeats narrow that."
        )
    lossy = [row for row in rows if not row["lossless"] and row["ratio"] > best["ratio"]]
    if lossy:
        found = next(row for row in lossy if row["cell"] == leading(lossy))
        said += f" Lossy and faster, with other text: {found['label']}, {ratio(found)}."
    return said
