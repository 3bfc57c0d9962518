"""The expert lab's sentences, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from widgets import theme
from widgets.labs.frame import table_html
from workbench.bench.expert_cost import TreePoint, stops_paying
from workbench.core.expert_cache import CacheReport
from workbench.core.routing import RoutingRecord
from workbench.core.steering import Intervention

LISTED = 4


def opening_html(said: str, name: str, dense: bool) -> str:
    """What the pictures are while the lab has no routing of its own."""
    told = f"The pictures show a recorded example: {said}."
    more = f"Measure loads {name} and records its routing."
    if dense:
        more = (
            f"{name} is a dense model: every token goes through the same matrices, so there is"
            " nothing to ban or force. Open the lab on a mixture (Qwen-MoE, Mixtral, OLMoE), for"
            " instance zoo:moe."
        )
    return f'<p class="dw-why">{escape(told)}</p><p class="dw-why">{escape(more)}</p>'


def not_yet(name: str, dense: bool) -> str:
    """Why there is no expert to act on, and what to do."""
    if dense:
        return f"{name} has no experts; open the lab on a mixture, for instance zoo:moe"
    return "no model yet; press Measure, then click a cell of the grid"


def interventions_html(given: Sequence[Intervention], where: str) -> str:
    """What is in force, newest first, and where the next one would act."""
    lines = [f'<p class="dw-why">Next one: {escape(where)}.</p>']
    for one in list(given)[::-1][:LISTED]:
        lines.append(f'<p class="dw-why" data-intervention="1">● {escape(str(one))}</p>')
    if len(given) > LISTED:
        lines.append(f'<p class="dw-small">and {len(given) - LISTED} more</p>')
    if not given:
        lines.append('<p class="dw-small">No intervention: the routers decide.</p>')
    return "".join(lines)


def text_html(now: float, before: float, record: RoutingRecord) -> str:
    """Loss of the text in the grid, and what it needs."""
    means = [float(layer.experts_per_token.float().mean()) for layer in record.layers.values()]
    distinct = record.distinct().values()
    return table_html(
        [
            ("loss of this text", f"{now:.3f} nats ({now - before:+.3f})"),
            ("experts a token and layer", f"{sum(means) / len(means):.2f}"),
            ("distinct experts a layer", f"{sum(distinct) / len(means):.1f}"),
        ]
    )


def trees_html(points: Sequence[TreePoint]) -> str:
    """The cost line."""
    return f'<p class="dw-why" data-cost="1">{escape(stops_paying(points))}</p>' if points else ""


def cache_html(report: CacheReport | None, recall: float, experts: int) -> str:
    """What the cache that is set would do; every time is projected."""
    if report is None:
        return ""
    wasted = report.total("wasted") * report.expert_bytes
    return table_html(
        [
            ("cache hits", f"{report.hit_ratio:.2f} of the choices"),
            ("predicted right", f"{recall:.2f} of the experts used"),
            ("experts in fast memory", f"{report.capacity} of {experts}"),
            ("moved", f"{theme.size(report.bytes_moved)}, {theme.size(int(wasted))} for nothing"),
            ("waiting, projected", f"{report.wait_ms:.2f} ms"),
        ]
    )
