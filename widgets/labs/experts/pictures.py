"""What the expert lab draws, from a routing record alone; no model and no UI library here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from widgets.figures import curves, expert_flow, heat, layer_bars, routing_grid
from workbench.bench.expert_cost import TreePoint
from workbench.core.expert_cache import CacheReport
from workbench.core.routing import RoutingRecord

TOKENS = 44  # of the text that the grid has room for
SHOWN = {
    "flow": "flow between the layers",
    "entropy": "entropy of the routers by layer",
    "change of load": "change of load by layer and expert",
    "trees": "distinct experts by tree size",
    "gain": "what a tree gains, projected",
    "cache": "hits of an expert cache",
}

_NOTHING = {"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}}
EMPTY: dict[str, Any] = {
    **dict.fromkeys(("grid", "cell", "picture", "load"), _NOTHING),
    "facts": '<p class="dw-small">Measure loads the mixture and records its routing.</p>',
}


def grid(
    record: RoutingRecord,
    pieces: Sequence[str],
    marked: Sequence[tuple[int, int]],
    note: str = "",
) -> dict[str, Any]:
    """Tokens across, layers up, coloured by the heaviest expert."""
    shown = min(len(pieces), TOKENS)
    ranked = [[layer.ranked(rank) for rank in (0, 1)] for layer in record.layers.values()]
    return routing_grid.figure(
        routing_grid.RoutingGrid(
            tuple(pieces[:shown]),
            tuple(record.layers),
            tuple(tuple(first[0][:shown]) for first, _ in ranked),
            tuple(tuple(second[0][:shown]) for _, second in ranked),
            tuple(tuple(first[1][:shown]) for first, _ in ranked),
            record.expert_count,
            tuple(cell for cell in marked if cell[1] < shown),
            note,
        )
    )


def opening(record: RoutingRecord, pieces: Sequence[str]) -> dict[str, Any]:
    """A recorded example, called so, until there is a routing of one's own."""
    first = record.layers[min(record.layers)].ranked(0)[0][0]
    return {
        "grid": grid(record, pieces, [(0, 0)], "recorded example"),
        "cell": cell(record, record, (0, 0), pieces[0], first),
        "load": load(record),
    }


def cell(
    record: RoutingRecord, before: RoutingRecord, place: tuple[int, int], piece: str, expert: int
) -> dict[str, Any]:
    """The router's probabilities for one token in one layer; the chosen experts are named."""
    at, token = place
    number = list(record.layers)[at]
    layer = record.layers[number]
    weights = layer.dense[token]
    used = [e for e in weights.argsort(descending=True).tolist() if weights[e] > 0]
    names = " + ".join(f"{e} ({weights[e]:.2f})" for e in used[:3])
    more = f" and {len(used) - 3} more" if len(used) > 3 else ""
    was = before.layers[number].logits[token].softmax(-1).tolist()
    return layer_bars.figure(
        layer_bars.LayerBars(
            f"“{piece}” in layer {number} · expert {expert}",
            "probability",
            tuple(map(str, range(len(was)))),
            tuple(layer.logits[token].softmax(-1).tolist()),
            tuple(was),
            expert,
            f"runs {names or 'none'}{more}",
        )
    )


def load(record: RoutingRecord, before: RoutingRecord | None = None) -> dict[str, Any]:
    """Share of the text's tokens that each expert sees; with ``before`` what changed."""
    layers = record.layers.items()
    values = {number: layer.load for number, layer in layers}
    if before is not None:
        values = {number: load - before.layers[number].load for number, load in values.items()}
    return heat.figure(
        heat.Heat(
            "Load" if before is None else "Change of load",
            "expert",
            "layer",
            tuple(map(str, range(record.expert_count))),
            tuple(str(number) for number in values),
            tuple(tuple(row.tolist()) for row in values.values()),
            "share of the tokens",
            diverging=before is not None,
        )
    )


def entropy(record: RoutingRecord, before: RoutingRecord, selected: int) -> dict[str, Any]:
    """How undecided each layer's router is, mean over the tokens."""

    def means(one: RoutingRecord) -> tuple[float, ...]:
        return tuple(float(layer.entropy.mean()) for layer in one.layers.values())

    return layer_bars.figure(
        layer_bars.LayerBars(
            "Entropy of the routers",
            "nats",
            tuple(str(number) for number in record.layers),
            means(record),
            means(before),
            selected,
            "0 = sure of one expert",
        )
    )


def flow(record: RoutingRecord) -> dict[str, Any]:
    """From each layer's heaviest expert to the next one's."""
    numbers = tuple(record.layers)
    pairs = [
        (at, one, two, float(share))
        for at in range(len(numbers) - 1)
        for one, row in enumerate(record.flow(numbers[at], numbers[at + 1]))
        for two, share in enumerate(row)
        if share > 0
    ]
    return expert_flow.figure(expert_flow.ExpertFlow(tuple(pairs), record.expert_count, numbers))


def trees(points: Sequence[TreePoint]) -> dict[str, Any]:
    """Distinct experts of a verification pass, beside what even or independent routing would do."""
    x = tuple(one.rows for one in points)
    lines = tuple(
        curves.Line(name, x, tuple(getattr(one, part) for one in points))
        for name, part in (
            ("measured", "distinct"),
            ("independent", "independent"),
            ("even", "even"),
            ("rejected only", "unneeded"),
        )
    )
    return curves.figure(
        curves.Curves(
            "Distinct experts a layer",
            "rows of a verification pass",
            "experts",
            lines if points else (),
            note="" if points else "press Measure trees",
        )
    )


def gain(points: Sequence[TreePoint]) -> dict[str, Any]:
    """Projected speed over plain decoding, for the mixture and for a dense model."""
    x = tuple(float(one.nodes) for one in points)
    lines = (
        curves.Line("this mixture", x, tuple(one.gain for one in points)),
        curves.Line("dense, same acceptance", x, tuple(one.dense_gain for one in points)),
        curves.Line("plain decoding", x, (1.0,) * len(x)),
    )
    best = max(points, key=lambda one: one.gain, default=None)
    return curves.figure(
        curves.Curves(
            "What a tree gains, projected from bytes",
            "draft tokens a round",
            "times plain",
            lines if points else (),
            (float(best.nodes), best.gain) if best else None,
            "" if points else "press Measure trees",
        )
    )


def cache(reports: Mapping[str, Sequence[CacheReport]], here: CacheReport | None) -> dict[str, Any]:
    """Hit ratio against capacity, a line for each policy."""
    lines = tuple(
        curves.Line(
            policy,
            tuple(float(one.capacity) for one in line),
            tuple(one.hit_ratio for one in line),
        )
        for policy, line in reports.items()
    )
    return curves.figure(
        curves.Curves(
            "Hits of an expert cache",
            "experts a layer in fast memory",
            "hits / choices",
            lines,
            (float(here.capacity), here.hit_ratio) if here else None,
            "" if lines else "press Simulate cache",
        )
    )
