"""What verifying a draft tree costs a mixture: distinct experts touched, and when to stop growing.

*Idea*: a dense model reads the same weights for one row or for twenty; a mixture reads the union of
their experts, rejected rows' too. So a larger tree costs more each time, and gains less each time.

*Paper*: Utility-Driven Speculative Decoding for Mixture-of-Experts, 2025, arXiv 2506.20675; MoESD,
2025, arXiv 2505.19645. The formulas are derived here; both papers were read in abstract.

Counts come from the routers during real verification passes. Costs are projected from bytes for a
machine that waits for memory; measured milliseconds stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.core.errors import BadInput
from workbench.core.method import make_method
from workbench.core.routing import RoutingRecord
from workbench.core.sampling import Sampling
from workbench.core.trace import Round
from workbench.engine.dials import weight_bytes
from workbench.engine.run import Run, RunSettings
from workbench.models.model import Model
from workbench.models.routers import expert_bytes, mixture_routers, own_of, routing_tape

SIZES = (1, 2, 4, 8, 16, 32)


def uniform_union(experts: int, k: float, rows: float) -> float:
    """Distinct experts of so many rows if routing were even and independent: E(1-(1-k/E)^n)."""
    return experts * (1 - (1 - k / experts) ** rows)


@dataclass(frozen=True)
class Shape:
    """Bytes that decide a pass of a mixture.

    Args:
        layers: that have experts.
        experts: of a layer; ``k`` of them for each token.
        expert_bytes: of one expert.
        dense_bytes: of everything that any pass reads.
        draft_bytes: that a pass of the draft reads, 0 = drafting is free.
    """

    layers: int
    experts: int
    k: float
    expert_bytes: int
    dense_bytes: int
    draft_bytes: int = 0

    @staticmethod
    def of(model: Model, draft: Model | None = None) -> Shape:
        """Of loaded models; an embedding that is not also the head is looked up, not read."""
        gates = mixture_routers(model.network)
        gate, size = next(iter(gates.values())), expert_bytes(model.network)
        total = _read_bytes(model) - sum(one.num_experts for one in gates.values()) * size
        small = 0 if draft is None else _read_bytes(draft)
        return Shape(len(gates), gate.num_experts, own_of(gate).k, size, total, small)

    @property
    def expert_share(self) -> float:
        """Share of one token's bytes that are experts."""
        active = self.layers * self.k * self.expert_bytes
        return active / (active + self.dense_bytes)

    def cost_ratio(self, distinct: float) -> float:
        """Bytes of a pass over those of one token, for so many distinct experts a layer."""
        return 1 - self.expert_share + self.expert_share * distinct / self.k

    def draft_ratio(self) -> float:
        """Bytes of a draft pass over those of one token of the target."""
        return self.draft_bytes / (self.dense_bytes + self.layers * self.k * self.expert_bytes)


def _read_bytes(model: Model) -> int:
    """Bytes of all weights but a table of embeddings that is not also the head."""
    tables = (model.network.get_input_embeddings(), model.network.get_output_embeddings())
    looked_up = 0 if tables[0].weight is tables[1].weight else tables[0].weight.nbytes
    return weight_bytes(model) - looked_up


@dataclass(frozen=True)
class TreePoint:
    """One tree size, means over all verification passes.

    Args:
        nodes: granted; ``rows`` is what was really scored, the root included.
        distinct: experts a layer; ``by_layer`` each layer's own.
        unneeded: experts a layer that only rejected rows asked for.
        even, independent: what distinct would be were routing even; were the rows independent
            with the experts' real shares.
        emitted: tokens a pass.
        cost_ratio: of the pass, projected, over one token's.
        gain, dense_gain: projected speed over plain decoding, for this mixture and for a dense
            model that accepts as much.
        verify_ms: measured.
    """

    nodes: int
    rows: float
    distinct: float
    by_layer: tuple[float, ...]
    unneeded: float
    even: float
    independent: float
    emitted: float
    cost_ratio: float
    gain: float
    dense_gain: float
    verify_ms: float


@dataclass(frozen=True, eq=False)
class Pass:
    """One round and the routing of its verification."""

    round: Round
    record: RoutingRecord


def verified(settings: RunSettings, cancelled: Callable[[], bool] = lambda: False) -> list[Pass]:
    """Decode, and record the target's routing in each round's verification pass."""
    run = Run(settings, cancelled)
    with settings.model.lock, routing_tape(settings.model.network) as tape:
        ends = [(done, len(tape)) for done in run.rounds()]
    records, layers = tape.records(), mixture_routers(settings.model.network)
    found: list[Pass] = []
    start = 0
    for done, end in ends:
        # the prompt's pass comes before, and where the target drafts for itself, its drafts' too
        own = [
            record
            for record in records[start:end]
            if record.token_count == len(done.tokens) + 1 and len(record.layers) == len(layers)
        ]
        found += [Pass(done, record) for record in own[-1:]]
        start = end
    return found


def point(nodes: int, passes: Sequence[Pass], shape: Shape) -> TreePoint:
    """Means over passes of one tree size.

    Raises:
        BadInput: no pass.
    """
    if not passes:
        raise BadInput(f"nodes={nodes}: no round was verified; let the runs emit more tokens")
    layers = tuple(passes[0].record.layers)
    counts = np.array([[one.record.distinct()[n] for n in layers] for one in passes])
    kept = [one.record.distinct([0, *(node + 1 for node in one.round.path)]) for one in passes]
    needed = np.array([[row[n] for n in layers] for row in kept])
    rows = np.array([one.record.token_count for one in passes])
    tokens = rows.sum()
    shares = np.stack(
        [sum((one.record.layers[n].dense != 0).sum(0).numpy() for one in passes) for n in layers]
    )
    apart = 1 - (1 - shares / tokens) ** rows[:, None, None]
    distinct, emitted = float(counts.mean()), float(np.mean([len(p.round.emitted) for p in passes]))
    k = float(shares.sum() / tokens / len(layers))
    real = replace(shape, k=k)  # a rule or a ban may give a token other than the model's own k
    drafts = float(np.mean([one.round.forwards.draft for one in passes])) * real.draft_ratio()
    cost = real.cost_ratio(distinct)
    return TreePoint(
        nodes,
        float(rows.mean()),
        distinct,
        tuple(counts.mean(0).tolist()),
        float((counts - needed).mean()),
        float(np.mean([uniform_union(shape.experts, k, n) for n in rows])),
        float(apart.sum(-1).mean()),
        emitted,
        cost,
        emitted / (cost + drafts),
        emitted / (1 + drafts),
        float(np.mean([one.round.ms.verify for one in passes])),
    )


def tree_costs(
    model: Model,
    prompts: Sequence[str],
    draft: Model | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    drafter: Any = None,
    new_tokens: int = 32,
    sampling: Sampling | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[TreePoint]:
    """Decode the prompts with trees of every size.

    Args:
        drafter: of trees; default: siblings of the draft model, or token recycling without one.
        sizes: draft tokens granted a round.

    Raises:
        BadInput: no prompts.
        ModelError: a model without experts.
    """
    if not prompts:
        raise BadInput("prompts: give one or more")
    if drafter is None:
        drafter = (
            "token_recycling"
            if draft is None
            else make_method("drafter", "draft_tree", sampler="greedy_top", branching="4,3,2,2,1")
        )
    shape, found = Shape.of(model, draft), []
    for index, nodes in enumerate(sizes):
        policy = make_method("policy", "fixed", depth=min(6, nodes), nodes=nodes, width=4)
        passes: list[Pass] = []
        for number, prompt in enumerate(prompts):
            settings = RunSettings(
                model,
                prompt,
                drafter,
                "multi_round",
                policy,
                sampling or Sampling(0.0),
                new_tokens,
                draft_model=draft,
                record_top=0,
            )
            passes += verified(settings, cancelled)
            progress((index + (number + 1) / len(prompts)) / len(sizes))
        found.append(point(nodes, passes, shape))
    return found


def stops_paying(points: Sequence[TreePoint]) -> str:
    """The sentence: up to which tree it pays here, and for a dense model."""
    best = max(points, key=lambda one: one.gain)
    dense = max(points, key=lambda one: one.dense_gain)
    if best.gain <= 1:
        return (
            f"No tree pays: the best, {best.nodes} nodes, is projected at {best.gain:.2f} times"
            f" plain decoding, since its pass reads {best.cost_ratio:.2f} times one token's bytes."
        )
    return (
        f"A tree pays up to {best.nodes} nodes: {best.emitted:.2f} tokens a pass for"
        f" {best.cost_ratio:.2f} times the bytes, projected {best.gain:.2f} times plain decoding."
        f" A dense model that accepts as much would grow it to {dense.nodes}"
        f" ({dense.dense_gain:.2f} times)."
    )
