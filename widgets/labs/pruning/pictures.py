"""The pruning lab's pictures and sentences, from what it knows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from widgets import theme
from widgets.figures import curves, layer_bars, mask_image
from widgets.figures.curves import Curves, Line
from widgets.figures.layer_bars import LayerBars
from widgets.labs import frame
from widgets.labs.pruning.form import BARS
from widgets.labs.pruning.recorded import MODEL, Recording
from widgets.labs.pruning.state import Sheet, Sweeps
from workbench.bench.sparsity import Point, expected_speed
from workbench.core.method import find_method

ASK = "press Curves to measure every criterion"


def image(sheet: Sheet, kept: np.ndarray) -> mask_image.MaskImage:
    """The canvas; its strip shows the norms of the inputs where they are known."""
    made = mask_image.mask_image(sheet.values, kept, sheet.title, sheet.labels)
    if sheet.norms is None:
        return made
    edges = made.column_edges
    strip = tuple(
        float(np.sqrt(np.square(sheet.norms[low:high]).mean()))
        for low, high in itertools.pairwise(edges)
    )
    return made._replace(strip=strip)


def _lines(sweeps: Sweeps, field: str) -> tuple[Line, ...]:
    return tuple(
        Line(
            find_method("pruner", name).title.partition(" (")[0],
            tuple(point.sparsity for point in points),
            tuple(getattr(point, field) for point in points),
        )
        for name, points in sweeps.curves.items()
    )


def opening(sweeps: Sweeps, example: Recording | None) -> tuple[Sweeps, str]:
    """The sweeps to draw, and what they are: an example until there are some of one's own."""
    if sweeps.curves or example is None:
        return sweeps, ""
    return Sweeps(example.known), f"recorded example, {MODEL}; {ASK}"


def loss(sweeps: Sweeps, said: str = "") -> dict[str, Any]:
    """Held-out loss against sparsity, one line a criterion."""
    here = (sweeps.here.sparsity, sweeps.here.loss_nats) if sweeps.here else None
    note = said or ("ring: now" if sweeps.curves else ASK)
    info = Curves(
        "Loss against sparsity",
        "removed share of block weights",
        "nats",
        _lines(sweeps, "loss_nats"),
        here,
        note,
    )
    return curves.figure(info)


def acceptance(sweeps: Sweeps, said: str = "") -> dict[str, Any]:
    """Acceptance of the pruned model as the dense one's drafter."""
    here = (sweeps.here.sparsity, sweeps.here.acceptance) if sweeps.here else None
    info = Curves(
        "As its own drafter",
        "removed share of block weights",
        "acceptance",
        _lines(sweeps, "acceptance"),
        here,
        said or ("pruned drafts, dense verifies" if sweeps.curves else ASK),
    )
    return curves.figure(info)


def bars(
    sweeps: Sweeps, shown: str, kept: list[float], selected: int, said: str = ""
) -> dict[str, Any]:
    """A bar a layer: the share kept, or the loss without it."""
    labels = tuple(str(index) for index in range(len(kept)))
    if shown == BARS[1]:
        dense = sweeps.dense.loss_nats if sweeps.dense else 0.0
        values = tuple(point.loss_nats - dense for point in sweeps.harm)
        note = said or "each dropped alone" if values else "press Layers to drop each alone"
        info = LayerBars("Which layers hurt", "nats more", labels[: len(values)], values)
        return layer_bars.figure(info._replace(selected=selected, note=note))
    info = LayerBars("Kept of each layer", "share", labels, tuple(kept), None, selected)
    return layer_bars.figure(info)


def opening_html(name: str) -> str:
    """What is shown before the model is there."""
    said = (
        f"The canvas and the charts show a recorded example: {MODEL}, its first layer and every"
        " criterion at several sparsities.",
        f"Measure loads {name}; then paint on its weights, or move the ratio.",
    )
    return "".join(f'<p class="dw-why">{escape(one)}</p>' for one in said)


def facts(now: Mapping[str, Any]) -> str:
    """What the mask is, and what it is worth.

    Args:
        now: ``note`` of the masks, shares kept (``matrix``, ``layer``, ``blocks``), ``parameters``
            of all and after cutting (``cut``, None = nothing can be cut), ``here`` (a Point),
            ``pattern``, ``device``, ``retrained``, and ``spot``: the selected place and what it is.
    """
    point: Point | None = now["here"]
    table = [
        ("this matrix keeps", theme.percent(now["matrix"])),
        ("this layer keeps", theme.percent(now["layer"])),
        ("all blocks keep", theme.percent(now["blocks"])),
    ]
    if now["spot"]:
        table.insert(0, now["spot"])
    if point is not None:
        table.append(("accepted as its own draft", theme.chance(point.acceptance)))
    said = [_worth(now, point), _hardware(now), now["retrained"]]
    words = "".join(f'<p class="dw-why">{escape(one)}</p>' for one in said if one)
    return (
        f'<div class="dw-title">{escape(now["note"] or "nothing pruned yet")}</div>'
        + frame.table_html(table)
        + words
    )


def _worth(now: Mapping[str, Any], point: Point | None) -> str:
    """What drafting with it would give."""
    if point is None or point.sparsity == 0:
        return ""
    if now["cut"] is None:
        return (
            "Single zeros are computed like any other number: a draft pass costs what a target pass"
            " costs (c = 1), so drafting with this mask never pays on dense kernels."
        )
    cost = now["cut"] / now["parameters"]
    speed, drafted = expected_speed(point.acceptance, cost)
    sure = "pays" if speed > 1 else "does not pay"
    return (
        f"Cut out, {now['cut'] / 1e6:.2f} of {now['parameters'] / 1e6:.2f} M parameters stay (c ≈"
        f" {cost:.2f}). Drafting {drafted} tokens with it {sure}: {theme.times(speed)} of plain"
        f" decoding, if every place accepts alike; break-even for one token is {cost:.2f}."
    )


def _hardware(now: Mapping[str, Any]) -> str:
    if ":" not in now["pattern"]:
        return ""
    if now["device"].startswith("cuda"):
        return now["sparse"] or "2:4: press 2:4 speed to measure torch's sparse kernels here."
    return "N:M on a CPU: no speed-up exists here; only GPUs have kernels that skip such zeros."
