"""One decoder layer drafts the target's features, each read with the token that follows it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need
from workbench.core.inference import inference_mode
from workbench.core.method import Paper, knob, method
from workbench.core.transfer import sent
from workbench.core.tree import DraftTree
from workbench.models.attachments import load_attachment
from workbench.models.blocks import Block, BlockShape, BlockStore


class EagleHead(nn.Module):
    """``FC([E(x_{t+1}) ; f_t])``, then one layer without an input norm, gives the next feature.

    Shapes: embeddings and features ``[b t d]`` -> features ``[b t d]``, one place later.
    """

    def __init__(self, config):
        super().__init__()
        d = config.get_text_config().hidden_size
        self.join = nn.Linear(2 * d, d)
        self.layer = Block(BlockShape.of(config), input_norm=False)

    def forward(
        self,
        embeddings: torch.Tensor,
        features: torch.Tensor,
        positions: torch.Tensor | None = None,
        store: BlockStore | None = None,
        visible: torch.Tensor | None = None,
    ) -> torch.Tensor:
        joined = self.join(torch.cat((embeddings, features), -1))
        return self.layer(joined, positions, store, visible)


@dataclass
class EagleState:
    """The head, its store of the text (true features only) and its newest feature ``[d]``."""

    head: EagleHead
    store: BlockStore
    newest: torch.Tensor | None = None


@dataclass
class _Beam:
    """The nodes expanded last: index among all candidates, log-probability, feature, visibility."""

    node: torch.Tensor  # [b]
    score: torch.Tensor  # [b]
    feature: torch.Tensor  # [b d] the feature after the node's parent
    seen: torch.Tensor  # [b rows] bool over the tree's rows so far


@method(
    "drafter",
    title="EAGLE",
    paper=Paper(
        "EAGLE-2: Faster Inference of Language Models with Dynamic Draft Trees",
        2024,
        "2406.16858",
    ),
)
class Eagle:
    """Autoregress over features instead of tokens, and keep the likeliest paths of a growing tree.

    *Idea*: the feature (the state that the LM head reads) is easier to predict than the token, once
    the sampled token is known; one layer on both is a draft of a tenth of the target's size.

    *Paper*: EAGLE arXiv 2401.15077 (head), EAGLE-2 arXiv 2406.16858 (tree by cumulative
    probability: expand the best, then keep the best of all).

    *Deviations*: every node below the root competes for the budget at once, and children of a node
    are limited by the budget's width. Children are *chosen*, so any verifier sees point masses.

    *Shapes*: a level: features and embeddings ``[beam d]`` -> laws ``[beam v]``. *Cost*: one layer
    and one LM-head product a level; keys and values drafted on are dropped every round.

    *Raises*: Mismatch for a head of another target.
    """

    needs = frozenset({Need.TARGET, Need.HIDDEN})

    heads: str = knob(
        "zoo", help="Trained head: zoo (embedded), untrained, or the folder of your own."
    )
    beam: int = knob(4, low=1, high=32, unit="nodes", help="Nodes of a level that are expanded.")

    def init(self, ctx: Context) -> EagleState:
        model = ctx.target.model
        attachment = load_attachment(self.heads, "eagle", model)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = EagleHead(model.network.config)
        return EagleState(attachment.fill(module, model.parts.embed.weight), BlockStore())

    @inference_mode()
    def propose(
        self, ctx: Context, state: EagleState, budget: Budget
    ) -> tuple[DraftTree, EagleState]:
        """Grow levels of candidates, then keep the ``budget.nodes`` likeliest of all."""
        if min(budget.depth, budget.nodes, budget.width) < 1 or len(ctx.tokens) < 2:
            return DraftTree.empty(ctx.device), state
        text = self._follow(ctx, state)
        tokens: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        parents: list[torch.Tensor] = []
        none = torch.zeros(1, device=ctx.device)
        beam = _Beam(none.long() - 1, none, state.newest[None], none.bool()[None, :0])
        fan = min(budget.width, budget.nodes, ctx.vocab_size)
        for depth in range(1, budget.depth + 1):
            logits = ctx.target.model.logits(beam.feature)[:, : ctx.vocab_size]
            laws = logits.float().log_softmax(-1)
            best = laws.topk(fan, -1)
            level = (beam.score[:, None] + best.values).flatten()
            offset = sum(len(part) for part in tokens)
            tokens.append(best.indices.flatten())
            scores.append(level)
            parents.append(beam.node.repeat_interleave(fan))
            step = DraftStep(depth, laws[0].exp(), logits[0], best.indices[0, 0])
            if depth == budget.depth or not budget.go(step):
                break
            kept = level.topk(min(self.beam, len(level))).indices
            rows = _Beam(
                offset + kept, level[kept], beam.feature[kept // fan], beam.seen[kept // fan]
            )
            beam = self._expanded(ctx, state, rows, tokens[-1][kept], text, depth)
        state.store.crop(text)
        if len(tokens) == 1 or fan == 1:  # all siblings, likeliest first, or one chain
            return _fixed(torch.cat(tokens), torch.cat(scores), budget.nodes, fan), state
        return _best(torch.cat(tokens), torch.cat(parents), torch.cat(scores), budget.nodes), state

    def _follow(self, ctx: Context, state: EagleState) -> int:
        """Feed the true features that are new, each with the token after it."""
        known = len(state.store)
        features = ctx.hidden["final"][known:]
        if len(features):
            after = sent(ctx.tokens[known + 1 :], ctx.device)
            embeddings = ctx.target.model.anatomy.embed(after)
            state.newest = state.head(embeddings[None], features[None], store=state.store)[0, -1]
        return len(state.store)

    def _expanded(self, ctx, state, rows: _Beam, tokens, text: int, depth: int) -> _Beam:
        """Run candidates through the head; each sees the text, its ancestors and itself."""
        own = torch.eye(len(tokens), dtype=torch.bool, device=ctx.device)
        seen = torch.cat((rows.seen, own), 1)
        whole = seen.new_ones(len(tokens), text)
        positions = torch.full_like(tokens, text + depth - 1)
        feature = state.head(
            ctx.target.model.anatomy.embed(tokens)[None],
            rows.feature[None],
            positions,
            state.store,
            torch.cat((whole, seen), 1),
        )[0]
        return _Beam(rows.node, rows.score, feature, seen)

    def update(self, ctx: Context, state: EagleState, feedback: Feedback) -> EagleState:
        return state


def _best(
    tokens: torch.Tensor, parents: torch.Tensor, scores: torch.Tensor, nodes: int
) -> DraftTree:
    """The likeliest candidates as a tree: a child never beats its parent, so paths stay whole."""
    order = scores.sort(descending=True, stable=True).indices[:nodes].sort().values
    kept, above = torch.stack((order, parents[order])).tolist()  # its shape has to be known
    place = {old: new for new, old in enumerate(kept)}
    parent = tuple(place.get(node, -1) for node in above)
    return DraftTree(tokens[order].clone(), parent, score=scores[order].exp().clone())


def _fixed(tokens: torch.Tensor, scores: torch.Tensor, nodes: int, fan: int) -> DraftTree:
    """The likeliest where they stand first anyway, so that nothing has to be read."""
    n = min(nodes, len(tokens))
    parent = tuple(range(-1, n - 1)) if fan == 1 else (-1,) * n
    return DraftTree(tokens[:n].clone(), parent, score=scores[:n].exp().clone())
