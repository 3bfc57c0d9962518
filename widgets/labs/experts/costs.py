"""What the expert lab measures on request: trees, and a cache of experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from widgets.labs.worker import Task
from workbench.bench.expert_cost import TreePoint, tree_costs
from workbench.core.expert_cache import POLICIES, CacheReport
from workbench.core.routing import RoutingRecord
from workbench.models.model import Model
from workbench.models.route_predictor import RoutePredictor
from workbench.models.routers import expert_bytes, record_routing

TREE_SIZES = (1, 2, 4, 8, 16)
NEW_TOKENS = 24
SEEN_TOKENS = 512  # of each text that the predictor learns from


@dataclass
class Costs:
    """Results for the routing in force; empty until asked for.

    Args:
        points: one a tree size.
        reports: a cache of every size, by policy; ``report`` is the one that is set.
        recall: of the predictor on the text shown.
    """

    points: list[TreePoint] = field(default_factory=list)
    reports: dict[str, list[CacheReport]] = field(default_factory=dict)
    report: CacheReport | None = None
    predictor: RoutePredictor | None = None
    recall: float = 0.0

    def verify_trees(
        self, model: Model, draft: Model | None, prompts: Sequence[str], task: Task
    ) -> None:
        """Decode with trees of every size."""
        self.points = tree_costs(
            model,
            prompts,
            draft,
            sizes=TREE_SIZES,
            new_tokens=NEW_TOKENS,
            cancelled=lambda: task.stopping,
            progress=task.timed("Verifying trees"),
        )

    def replay(
        self, model: Model, record: RoutingRecord, flow: Any, texts: Sequence[str], task: Task
    ) -> None:
        """Fit the predictor on other texts, where it is not yet, and replay the record."""
        if self.predictor is None or self.predictor.kind != flow.predictor:
            most = min(SEEN_TOKENS, model.context_tokens)
            seen = [record_routing(model, model.encode_all(text)[:most]) for text in texts]
            embedding = model.network.get_input_embeddings().weight
            self.predictor = flow.fit(embedding, seen, task.timed("Fitting the predictor"))
        size, predictor = expert_bytes(model.network), self.predictor
        self.reports = {
            policy: [
                replace(flow, policy=policy, capacity=room).simulate(record, size, predictor)
                for room in range(1, record.expert_count + 1)
            ]
            for policy in POLICIES
        }
        self.report = flow.simulate(record, size, predictor)
        found = predictor.recall(record).values()
        self.recall = sum(found) / len(found)
