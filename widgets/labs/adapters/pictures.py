"""The adapter lab's pictures, from values of its shelf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from widgets.figures import curves, heat, layer_bars, spectrum
from widgets.figures.curves import Curves, Line
from widgets.figures.heat import Heat
from widgets.labs import frame
from widgets.labs.adapters.recorded import Recording
from widgets.labs.adapters.shelf import Entry
from workbench.training.adapter import AdapterProgress

VIRTUAL = (
    "Virtual tokens change no weight: norms and singular values are those of their keys and"
    " values. Strength s counts each of them s times, alike in all layers."
)
PAIRS = ("adapted target, plain draft", "both adapted", "neither adapted")


def loss(progress: AdapterProgress | None, note: str = "") -> dict:
    """Loss of the rows learnt from and of those that are not, while training."""
    lines: tuple[Line, ...] = ()
    if progress is not None and progress.measured:
        steps = tuple(float(m.step) for m in progress.measured)
        seen = [(float(step), nats) for step, nats in progress.curve]
        lines = (
            Line("learnt rows", tuple(x for x, _ in seen), tuple(y for _, y in seen)),
            Line("held out", steps, tuple(m.loss_nats for m in progress.measured)),
        )
    return curves.figure(Curves("Loss while training", "step", "nats a token", lines, None, note))


def acceptance(
    progress: AdapterProgress | None, realigned: Sequence[tuple[int, float]], note: str = ""
) -> dict:
    """Acceptance of the plain draft while training, of its copy while it is re-aligned."""
    lines = []
    if progress is not None and progress.measured:
        steps = tuple(float(m.step) for m in progress.measured)
        found = tuple(m.acceptance_ratio for m in progress.measured)
        note = note or ("no draft model to accept" if found[0] is None else "")
        lines.append(Line("plain draft, adapter training", steps, found))
    if realigned:
        xs, ys = zip(*realigned, strict=True)
        lines.append(Line("draft being re-aligned", tuple(map(float, xs)), tuple(ys)))
    title = "Acceptance of a draft token on this text"
    return curves.figure(Curves(title, "step", "acceptance", tuple(lines), None, note))


def strength(
    sweep: Mapping[str, Sequence[tuple[float, float]]], here: float | None, note: str = ""
) -> dict:
    """Expected acceptance of a draft token against strength, for three pairings."""
    lines = tuple(
        Line(name, tuple(x for x, _ in points), tuple(y for _, y in points))
        for name, points in sweep.items()
    )
    ring = None
    if lines and here is not None:
        points = dict(next(iter(sweep.values())))
        nearest = min(points, key=lambda x: abs(x - here))
        ring = (nearest, points[nearest])
    title = "Acceptance of a draft token by strength"
    note = note or ("ring: now" if ring else "press Sweep strength")
    return curves.figure(Curves(title, "strength", "acceptance", lines, ring, note))


def norms(
    entry: Entry | None, factors: Mapping[int, float], layer: int, layers: int, note: str = ""
) -> dict:
    """Size of the update by layer as it is set; a tick tells it at strength 1."""
    title, labels = "Norm of the update by layer", tuple(f"layer {n}" for n in range(layers))
    if entry is None:
        return layer_bars.figure(layer_bars.LayerBars(title, "", (), (), note=note))
    plain = tuple(entry.norms.get(n, 0.0) for n in range(layers))
    now = tuple(value * factors.get(n, 1.0) for n, value in enumerate(plain))
    compare = None if now == plain else plain
    return layer_bars.figure(
        layer_bars.LayerBars(title, "Frobenius norm", labels, now, compare, layer, note)
    )


def singular(entry: Entry | None, layer: int, note: str = "") -> dict:
    """Singular values of the selected layer's updates."""
    found = entry.spectrum.get(layer, {}) if entry else {}
    lines = tuple(
        Line(name, tuple(float(n + 1) for n in range(len(values))), tuple(values))
        for name, values in found.items()
    )
    title = f"Singular values of the update, layer {layer}"
    return spectrum.figure(spectrum.Spectrum(title, lines, note))


def routers(entry: Entry | None) -> dict:
    """Share of the assignments by layer and expert."""
    loads = entry.loads if entry else {}
    most = max((len(shares) for shares in loads.values()), default=0)
    values = tuple(
        tuple(shares[n] if n < len(shares) else None for n in range(most))
        for shares in loads.values()
    )
    return heat.figure(
        Heat(
            "Share of tokens by expert",
            "expert",
            "layer",
            tuple(str(n) for n in range(most)),
            tuple(str(layer) for layer in loads),
            values,
            "of assignments",
            "" if loads else "only a mixture (MoLA) has experts",
        )
    )


def ranks(report: Mapping[str, Any]) -> dict:
    """Live rank of every matrix at each growth."""
    log, modules = report.get("ranks", []), report.get("modules", [])
    names = [
        ".".join(part for part in path.split(".") if part.isdigit() or "_proj" in part)
        for path in modules
    ]
    values = tuple(tuple(float(row[n]) for _, row in log) for n in range(len(names)))
    steps = tuple(str(step) for step, _ in log)
    said = "" if log else "only IncreLoRA's ranks grow"
    return heat.figure(
        Heat("Rank of each matrix", "step", "matrix", steps, tuple(names), values, "ranks", said)
    )


def opening(old: Recording, now: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """The cells before anything was made here: a recorded example, and called so."""
    entry, said, count = old.entry, "recorded example", len(old.norms)
    layer = min(now["layer"], count - 1)
    lower = {
        "spectrum": lambda: singular(entry, layer, said),
        "routers": lambda: routers(None),
        "ranks": lambda: ranks({}),
    }[now["below"]]
    told = f"The charts show a recorded example: {old.said}. Train draws your own."
    return {
        "loss": loss(entry.progress, said),
        "upper": acceptance(entry.progress, old.realigned, said)
        if now["show"] == "training"
        else strength(old.sweeps, None, said),
        "norms": norms(entry, dict.fromkeys(old.norms, 1.0), layer, count, said),
        "lower": lower(),
        "facts": facts(None, None, (*notes, told)),
    }


def facts(entry: Entry | None, second: Entry | None, notes: Sequence[str]) -> str:
    """What is on the model, in words and numbers."""
    parts = [f'<p class="dw-why">{escape(note)}</p>' for note in notes if note]
    for one in (entry, second):
        if one is None:
            continue
        rows = [("trainable parameters", f"{one.parameters:,}")]
        if getattr(one.config, "is_prompt_learning", False):
            rows.append(("virtual tokens", f"{one.config.num_virtual_tokens:,}"))
            parts.append(f'<p class="dw-why">{VIRTUAL}</p>')
        rows += [(name.replace("_", " "), _said(name, v)) for name, v in one.facts.items()]
        if one.progress is not None and one.progress.measured:
            first, last = one.progress.measured[0], one.progress.measured[-1]
            rows.append(("held-out loss", f"{first.loss_nats:.3f} → {last.loss_nats:.3f} nats"))
            if last.acceptance_ratio is not None and first.acceptance_ratio is not None:
                moved = f"{first.acceptance_ratio:.3f} → {last.acceptance_ratio:.3f}"
                rows.append(("acceptance of the plain draft", moved))
            if one.progress.note:
                parts.append(f'<p class="dw-why">{escape(one.progress.note)}</p>')
        if warning := one.facts.get("warning"):
            parts.append(f'<p class="dw-error">{escape(str(warning))}</p>')
        title = f"{escape(one.name)} · {escape(one.kind)}"
        parts.append(f'<h3 class="dw-title">{title}</h3>{frame.table_html(rows)}')
    if entry is None and second is None:
        told = "Train an adapter, or open a peft folder: write its path under File."
        parts.append(f'<p class="dw-why">{told}</p>')
    return "".join(parts)


def _said(name: str, value: Any) -> str:
    if name == "warning":
        return "see above"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
