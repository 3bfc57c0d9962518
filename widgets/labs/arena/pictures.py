"""What the arena draws: plotly dicts from results, cost reports, predictions and searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from widgets.figures import (
    arena_charts,
    cost_curves,
    curves,
    heat,
    pareto,
    predicted_measured,
    ranked_bars,
    search_history,
)
from widgets.labs.arena.results import Results
from workbench.bench.cost_model import CostReport
from workbench.bench.elsewhere import Prediction

BARS = 8  # that the picture has room for; the table has all
LINES = 4


def steady(figure: dict[str, Any]) -> dict[str, Any]:
    """The figure with a legend that takes no room, where it had none.

    Plotly keeps the room of a legend that is gone when a cell goes on to another picture.
    """
    layout = figure["layout"]
    if layout.get("showlegend") and figure["data"]:
        return figure
    layout["showlegend"] = True
    layout["legend"] = {
        "x": 1, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "top",
        "bgcolor": "rgba(0,0,0,0)", "font": {"size": 1},
    }  # fmt: skip
    nobody = {
        "type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": " ",
        "showlegend": True, "hoverinfo": "skip", "marker": {"color": "rgba(0,0,0,0)"},
    }  # fmt: skip
    return {**figure, "data": [*({**one, "showlegend": False} for one in figure["data"]), nobody]}


def ranking(results: Results | None, chosen: str) -> tuple[ranked_bars.RankedBars, list[str]]:
    """The best bars and the cell of each, best first; the chosen one is pointed at."""
    table = results.table if results else []
    info = arena_charts.ranking(table)
    cells = [row["cell"] for row in table if row["ratio"] is not None]
    pairs = sorted(zip(info.bars, cells, strict=True), key=lambda pair: -pair[0].value)[:BARS]
    more = f"{BARS} of {len(cells)}" if len(cells) > BARS else ""
    bars = tuple(
        bar._replace(name=f"▸ {bar.name}") if cell == chosen else bar for bar, cell in pairs
    )
    title = _titled(info.title, results.said if results else "")
    note = " · ".join(filter(None, (info.note.removeprefix("median of "), more)))
    return info._replace(title=title, bars=bars, note=note), [cell for _, cell in pairs]


def _titled(title: str, said: str) -> str:
    """``Recorded example: speed against plain decoding``."""
    return f"{said[:1].upper()}{said[1:]}: {title[:1].lower()}{title[1:]}" if said else title


def bars(info: ranked_bars.RankedBars) -> dict[str, Any]:
    """The ranking in a cell that decides how high it is."""
    figure = steady(ranked_bars.figure(info))
    figure["layout"].pop("height", None)
    return figure


def of_drafters(results: Results | None) -> dict[str, dict[str, Any]]:
    """Drafter -> the row of its fastest lossless setting, fastest first."""
    found: dict[str, dict[str, Any]] = {}
    rows = [row for row in (results.table if results else []) if row["ratio"] is not None]
    for row in sorted(rows, key=lambda row: -row["ratio"]):
        if row["lossless"] and row["label"] != "plain":
            found.setdefault(row["label"].partition(", ")[0].partition("(")[0], row)
    return {name.partition(" of ")[0]: row for name, row in found.items()}


def arena(results: Results | None, picture: str) -> dict[str, dict[str, Any]]:
    """Each drafter's fastest lossless setting by kind of prompt, and one of two more."""
    best = of_drafters(results)
    renamed = [{**row, "label": name} for name, row in best.items()]
    kinds = results.by_kind if results else {}
    about = "fastest lossless of each drafter" if best else ""
    table = arena_charts.by_task(kinds, renamed)._replace(note=about)
    if picture == "quality":
        rows = results.table if results else []
        right = pareto.figure(arena_charts.speed_and_quality(rows))
    else:
        depth = arena_charts.acceptance_by_depth(renamed)
        depth = depth._replace(lines=depth.lines[:LINES], y_title="kept", note=about)
        right = curves.figure(depth)
    return {"left": steady(heat.figure(table)), "right": steady(right)}


def shortened(model: str) -> str:
    """A folder's last name; other names as they are."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model


def cost_infos(report: CostReport | None, said: str = "") -> dict[str, tuple[Any, Any]]:
    """Cell -> (figure module, its data), of a measured cost."""
    passes = []
    for curve in filter(None, (report.verify, report.draft)) if report else ():
        for context, ms in zip(curve.contexts, curve.ms, strict=True):
            name = f"{shortened(curve.model)}, {context} stored"
            passes.append(cost_curves.PassCost(name, tuple(map(float, curve.rows)), ms))
    pairs = tuple(
        predicted_measured.Pair(f"{r.nodes}×{r.depth}", r.predicted_ratio, r.measured_ratio)
        for r in (report.rows if report else ())
    )
    ranks = [a for a in report.acceptance if a > 0] if report else []
    line = curves.Line("accepted", tuple(float(k + 1) for k in range(len(ranks))), tuple(ranks))
    how = "nodes × depth of the draft" if pairs else ""
    return {
        "main": (
            cost_curves,
            cost_curves.CostCurves("What a pass costs", tuple(passes), note=said),
        ),
        "left": (
            predicted_measured,
            predicted_measured.PredictedMeasured("Speed-up by size", "x plain", pairs, 1.0, how),
        ),
        "right": (
            curves,
            curves.Curves(
                "Acceptance by rank",
                "choice of the draft",
                "accepted",
                (line,) if ranks else (),
                note="of nodes whose parent was" if ranks else "",
            ),
        ),
    }


def drawn(infos: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    """The figure of each."""
    return {name: steady(module.figure(info)) for name, (module, info) in infos.items()}


def elsewhere_infos(here: Prediction, places: Mapping[str, Prediction]) -> dict[str, tuple]:
    """Cell -> (figure module, its data), of a prediction and of other places for the draft."""
    passes = tuple(
        cost_curves.PassCost(curve.model, tuple(map(float, curve.rows)), curve.ms[0])
        for curve in filter(None, (here.verify, here.draft))
    )
    rows = float(len(here.best.parent) + 1)
    sizes = curves.Line(
        "best tree", tuple(float(n) for n, _ in here.by_nodes), tuple(g for _, g in here.by_nodes)
    )
    plain = curves.Line("plain decoding", sizes.x, (1.0,) * len(sizes.x))
    bars = tuple(ranked_bars.Ranked(name, one.speedup) for name, one in places.items())
    best = (float(len(here.best.parent)), here.speedup)
    return {
        "main": (
            cost_curves,
            cost_curves.CostCurves(
                "What a pass would cost", passes, True, (rows, here.verify_ms), "roofline"
            ),
        ),
        "left": (
            ranked_bars,
            ranked_bars.RankedBars("Where the draft stands", "x plain", bars, 1.0, "predicted"),
        ),
        "right": (
            curves,
            curves.Curves(
                "Speed-up by size", "draft tokens a round", "x plain", (sizes, plain), best,
                "predicted, with the acceptance measured here",
            ),
        ),
    }  # fmt: skip


def elsewhere(infos: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    """The figures, the bars as high as their cell."""
    made = drawn(infos)
    made["left"] = bars(infos["left"][1])
    return made


def tune(history: Sequence[dict[str, Any]], said: str = "") -> dict[str, dict[str, Any]]:
    """The search as it went, and its best trials."""
    info = arena_charts.search(history)
    info = info._replace(title=_titled(info.title, said))
    done = sorted(
        (row for row in history if row["ratio"] is not None), key=lambda row: -row["ratio"]
    )
    best: dict[str, float] = {}
    for row in done:
        best.setdefault(row["label"], row["ratio"])
    five = list(best.items())[:5]
    shown = [{"cell": n, "label": n, "target": "", "temperature": 0.0} for n, _ in five]
    names = arena_charts.names(shown)
    top = tuple(ranked_bars.Ranked(names[label], ratio) for label, ratio in five)
    leading: dict[str, float] = {}
    for row in done:
        leading.setdefault(str(row.get("drafter", "")), row["ratio"])
    each = tuple(ranked_bars.Ranked(name, ratio) for name, ratio in leading.items())
    about = "of one measurement of each prompt" if top else ""
    return {
        "main": steady(search_history.figure(info)),
        "left": bars(ranked_bars.RankedBars("Best trials", "x plain", top, 1.0, about)),
        "right": bars(ranked_bars.RankedBars("Best of each drafter", "x plain", each, 1.0)),
    }
