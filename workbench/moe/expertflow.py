"""ExpertFlow: predicted routing paths, a cache for experts, tokens regrouped by route."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float

from workbench.core.expert_cache import (
    POLICIES,
    CacheReport,
    Link,
    distinct_per_layer,
    grouped,
    replay,
)
from workbench.core.method import Paper, knob, method
from workbench.core.routing import Own, Routed, RoutingRecord, heaviest, law
from workbench.models.route_predictor import KINDS, RoutePredictor, fit_predictor


@method(
    "router",
    title="ExpertFlow (predicted experts)",
    paper=Paper("ExpertFlow: Optimized Expert Activation and Token Allocation", 2024, "2410.17954"),
)
class ExpertFlow:
    """Load the experts that a predictor expects, so that few are waited for; routing is unchanged.

    *Idea*: a light model guesses every layer's experts from the text before the mixture runs. What
    it guesses is loaded early; what the real router asks for beyond that is fetched at once. Tokens
    that may run in any order are grouped so that a group touches few experts.

    *Deviations*: the paper's predictor is an encoder-decoder over whole batches; here it is a
    linear map of the token's embedding, or one causal transformer layer, since tokens are decoded
    one by one. Loading ahead keeps what is predicted for the present token, a miss what the token
    was really sent to; else the least recently used goes. Grouping is greedy. There is no public
    code (2510.26730 is another method of this name): these parts are reconstructions. Times are
    projected from the link's figures; ``workbench.models.expert_offload`` moves weights for real.

    *Cost*: the predictor reads one embedding row a token; a replay is a few dictionary operations
    for each choice.
    """

    steers = False  # a rule to compare others with would only be the model's own

    predictor: str = knob("token", choices=KINDS, help="What the guess is made from.")
    policy: str = knob("prefetch", choices=POLICIES, help="What is kept and loaded.")
    capacity: int = knob(4, low=1, high=64, unit="experts a layer", help="Room in fast memory.")
    ahead: int = knob(2, low=1, high=16, unit="experts", help="Prefetched for each token.")
    gb_per_s: float = knob(
        16.0, low=0.5, high=128.0, step=0.5, unit="GB/s", help="Bandwidth of the link."
    )
    latency_us: float = knob(
        10.0, low=0.0, high=200.0, step=1.0, unit="µs", help="Of each transfer."
    )
    compute_us: float = knob(
        50.0, low=0.0, high=1000.0, step=5.0, unit="µs", help="One layer's own work."
    )
    steps: int = knob(300, low=1, high=5000, help="Training steps of the predictor.")
    group_tokens: int = knob(16, low=1, high=1024, unit="tokens", help="Of a regrouped batch.")

    def route(self, logits: Float[torch.Tensor, "t e"], own: Own) -> Routed:
        """The model's own rule: a prediction never decides what is computed."""
        return heaviest(law(logits), self.bounds(logits.shape[-1], own)[1], own.normalised)

    def sums_to_one(self, own: Own) -> bool:
        return own.normalised

    def bounds(self, experts: int, own: Own) -> tuple[int, int]:
        return min(own.k, experts), min(own.k, experts)

    @property
    def link(self) -> Link:
        return Link(self.gb_per_s, self.latency_us, self.compute_us)

    def fit(
        self,
        embedding: Float[torch.Tensor, "v d"],
        records: Sequence[RoutingRecord],
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> RoutePredictor:
        """A predictor of the chosen kind, from routes of training text."""
        return fit_predictor(
            embedding, records, self.predictor, steps=self.steps, progress=progress
        )

    def simulate(
        self, record: RoutingRecord, expert_bytes: int, predictor: RoutePredictor
    ) -> CacheReport:
        """Replay a record that the predictor has not seen; it only observes.

        Raises:
            BadInput: a record without token ids, which a prediction needs.
        """
        plan = predictor.plan(record.tokens, min(self.ahead, self.capacity))
        if self.policy == "pinned":
            best = predictor.frequency.topk(
                min(self.capacity, predictor.frequency.shape[1])
            ).indices
            plan = {
                number: [row.tolist()] for number, row in zip(predictor.layers, best, strict=True)
            }
        return replay(record, self.policy, self.capacity, expert_bytes, self.link, plan)

    def schedule(self, record: RoutingRecord) -> tuple[list[int], float, float]:
        """An order of the tokens; distinct experts a layer and group as they are, and in it."""
        order, size = grouped(record, self.group_tokens), self.group_tokens
        plain = distinct_per_layer(record, range(record.token_count), size)
        return order, plain, distinct_per_layer(record, order, size)
