"""Data for the charts of the labs: none, one element, a lot, and what people usually see."""

from __future__ import annotations

import numpy as np

from widgets.figures import (
    cost_curves,
    curves,
    expert_flow,
    heat,
    layer_bars,
    pareto,
    predicted_measured,
    ranked_bars,
    routing_grid,
    search_history,
    spectrum,
    waterfall,
)
from widgets.figures.curves import Curves, Line

DRAW = np.random.default_rng(7)


def lines(count: int, points: int) -> tuple[Line, ...]:
    x = tuple(n / max(1, points) for n in range(points))
    return tuple(
        Line(f"criterion {n}", x, tuple(2 + n * s**2 + 0.1 for s in x)) for n in range(count)
    )


def some_curves(count: int, points: int) -> Curves:
    here = (0.5, 2.2) if count else None
    title = "Held-out loss against sparsity"
    return Curves(title, "sparsity", "loss, nats a token", lines(count, points), here, "a note")


def some_bars(count: int) -> layer_bars.LayerBars:
    values = tuple(float(v) for v in DRAW.normal(size=count))
    labels = tuple(f"{n} attention" if count < 20 else str(n) for n in range(count))
    return layer_bars.LayerBars("Norm by layer", "norm", labels, values, values[::-1], count - 1)


def some_heat(rows: int, columns: int, diverging: bool = False) -> heat.Heat:
    values = tuple(tuple(float(v) for v in row) for row in DRAW.normal(size=(rows, columns)))
    x, y = (tuple(map(str, range(n))) for n in (columns, rows))
    return heat.Heat("Load", "expert", "layer", x, y, values, "share", "", diverging)


def some_grid(tokens: int, layers: int, experts: int = 8) -> routing_grid.RoutingGrid:
    first, second = DRAW.integers(0, experts, size=(2, layers, tokens)).tolist()
    weight = DRAW.random((layers, tokens)).tolist()
    pieces = tuple(("def", " __init__", "(", "\n", " self")[n % 5] for n in range(tokens))
    table = (tuple(map(tuple, part)) for part in (first, second, weight))
    marked = ((layers - 1, tokens - 1),) if tokens else ()
    return routing_grid.RoutingGrid(pieces, tuple(range(layers)), *table, experts, marked)


def some_flow(layers: int, experts: int) -> expert_flow.ExpertFlow:
    pairs = [
        (layer, one, two, float(DRAW.random() ** 4))
        for layer in range(layers - 1)
        for one in range(experts)
        for two in range(experts)
    ]
    whole = sum(pair[3] for pair in pairs) / max(1, layers - 1)
    shares = tuple((*pair[:3], pair[3] / whole) for pair in pairs)
    return expert_flow.ExpertFlow(shares, experts, tuple(range(layers)))


def some_steps(count: int) -> waterfall.Waterfall:
    names = ("plain", "LoRA on target", "mask 50 %", "draft re-aligned")
    steps = tuple((names[n % 4], 0.6 if n == 0 else 0.05 * (-1) ** n) for n in range(count))
    return waterfall.Waterfall("Acceptance, step by step", "acceptance", steps, "a note")


def some_ranks(count: int) -> ranked_bars.RankedBars:
    drafters = ("token_recycling", "prompt_lookup", "draft_model of zoo:draft", "rest")
    bars = tuple(
        ranked_bars.Ranked(f"{drafters[n % 4]}, exact_match, fixed(depth={n})",
                           v := 2.2 - 1.7 * n / max(1, count), v * 0.9, v * 1.15, n % 3 == 2)
        for n in range(count)
    )  # fmt: skip
    return ranked_bars.RankedBars("Speed against plain decoding", "x plain", bars, 1.0, "a note")


def some_points(count: int) -> pareto.Pareto:
    points = tuple(
        pareto.Point(f"typical(eps={n}), fixed(depth={n % 9})", 1 + n / max(1, count),
                     -1.2 - 0.4 * (n / max(1, count)) ** 2 - 0.05 * (n % 3), n % 3 > 0)
        for n in range(count)
    )  # fmt: skip
    return pareto.Pareto("What speed costs", "x plain", "log-likelihood, nats", points, "a note")


def some_trials(count: int) -> search_history.SearchHistory:
    groups = ("token_recycling", "prompt_lookup", "draft_model")
    trials = tuple(
        search_history.Trial(n, None if n % 7 == 5 else 0.8 + float(DRAW.random()) * (1 + n / 90),
                             groups[n % 3], "pruned" if n % 7 == 5 else "complete", f"trial {n}")
        for n in range(count)
    )  # fmt: skip
    return search_history.SearchHistory("The search", "x plain", trials)


def some_costs(count: int, sizes: int) -> cost_curves.CostCurves:
    rows = tuple(float(2**n) for n in range(sizes))
    passes = tuple(
        cost_curves.PassCost(f"zoo:target, {64 * (n + 1)} stored", rows,
                             tuple(2.0 + n + r / 8 for r in rows))
        for n in range(count)
    )  # fmt: skip
    return cost_curves.CostCurves("What a pass costs", passes, count == 2, (2.0, 3.0), "a note")


def some_pairs(count: int) -> predicted_measured.PredictedMeasured:
    pairs = tuple(
        predicted_measured.Pair(f"{n}×{1 + n // 4}", 1.6 - n / max(1, count),
                                None if n % 5 == 4 else 1.4 - n / max(1, count))
        for n in range(count)
    )  # fmt: skip
    return predicted_measured.PredictedMeasured("Speed-up by size", "x plain", pairs, 1.0, "note")


CASES = {
    "cost_curves": (cost_curves, [some_costs(0, 0), some_costs(1, 1), some_costs(6, 12)]),
    "predicted_measured": (predicted_measured, [some_pairs(0), some_pairs(1), some_pairs(60)]),
    "curves": (curves, [some_curves(0, 0), some_curves(1, 1), some_curves(6, 400)]),
    "spectrum": (spectrum, [spectrum.Spectrum("Singular values", lines(n, m)) for n, m in
                            ((0, 0), (1, 1), (3, 512))]),
    "layer_bars": (layer_bars, [some_bars(0), some_bars(1), some_bars(80)]),
    "heat": (heat, [some_heat(0, 0), some_heat(1, 1, True), some_heat(32, 2000)]),
    "routing_grid": (routing_grid, [some_grid(0, 0), some_grid(1, 1), some_grid(600, 16, 64)]),
    "expert_flow": (expert_flow, [some_flow(0, 0), some_flow(2, 1), some_flow(16, 16)]),
    "waterfall": (waterfall, [some_steps(0), some_steps(1), some_steps(30)]),
    "ranked_bars": (ranked_bars, [some_ranks(0), some_ranks(1), some_ranks(60)]),
    "pareto": (pareto, [some_points(0), some_points(1), some_points(200)]),
    "search_history": (search_history, [some_trials(0), some_trials(1), some_trials(300)]),
}  # fmt: skip
USUAL = {
    "cost_curves": (cost_curves, some_costs(2, 8)),
    "predicted_measured": (predicted_measured, some_pairs(5)),
    "curves": (curves, some_curves(5, 10)),
    "curves with a long heading": (
        curves,
        some_curves(2, 10)._replace(
            title="Acceptance of the drafter against the strength of every adapter that is on",
            note="every point is the mean of the sum of min(p, q) over all held-out places",
        ),
    ),
    "curves with long names": (
        curves,
        Curves("Acceptance against strength", "strength", "acceptance", tuple(
            line._replace(name=name) for line, name in zip(
                lines(3, 9), ("target + adapter, draft plain", "both adapted", "neither"),
                strict=True)), (0.4, 2.1), "sum of min(p, q) over held-out places"),
    ),
    "spectrum": (spectrum, spectrum.Spectrum("Singular values, layer 3", lines(2, 16))),
    "layer_bars": (layer_bars, some_bars(6)),
    "layer_bars of 32": (layer_bars, some_bars(32)),
    "heat": (heat, some_heat(6, 8)),
    "heat, diverging": (heat, some_heat(6, 8, True)),
    "heat, wide": (heat, some_heat(12, 60)),
    "routing_grid": (routing_grid, some_grid(24, 6)),
    "expert_flow": (expert_flow, some_flow(6, 8)),
    "waterfall": (waterfall, some_steps(4)),
    "ranked_bars": (ranked_bars, some_ranks(6)),
    "pareto": (pareto, some_points(9)),
    "search_history": (search_history, some_trials(30)),
}  # fmt: skip
