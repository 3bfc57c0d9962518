"""Medusa's heads made sequential: each also reads the tokens drafted before it on the path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.inference import inference_mode
from workbench.core.method import Paper, knob, method
from workbench.core.template import Template, grown_template
from workbench.core.transfer import sent
from workbench.core.tree import DraftTree, shape_of
from workbench.models.attachments import load_attachment
from workbench.models.blocks import Block, BlockShape, BlockStore

HEADS = 3
_UNMEASURED = ((0.3, 0.12, 0.07, 0.05, 0.04, 0.03, 0.02, 0.02),) * HEADS


class HydraHeads(nn.Module):
    """Head i maps ``[h ; E(root) ; E(first) ; ...]`` of width (i+2)d to a state for the LM head.

    Args:
        config: the target's configuration (sizes of the prefix layer).
        prefix_inner: width of the prefix layer's MLP.
    """

    def __init__(self, config, heads: int = HEADS, prefix_inner: int = 320):
        super().__init__()
        d = config.get_text_config().hidden_size
        self.prefix = Block(BlockShape.of(config, inner=prefix_inner))
        self.prefix_norm = nn.RMSNorm(d, eps=self.prefix.shape.eps)
        self.straight = nn.ModuleList(nn.Linear((i + 2) * d, d) for i in range(heads))
        self.bent = nn.ModuleList(nn.Linear((i + 2) * d, d) for i in range(heads))
        with torch.no_grad():  # an untrained head hands the hidden state through
            for i in range(heads):
                self.bent[i].weight.zero_()
                self.straight[i].bias.zero_()
                self.straight[i].weight.zero_()[:, :d].copy_(torch.eye(d))

    def prefixed(self, hidden: torch.Tensor, store: BlockStore | None = None) -> torch.Tensor:
        """Hidden states ``[b t d]`` after the prefix layer, which sees all earlier ones."""
        return self.prefix_norm(self.prefix(hidden, store=store))

    def forward(self, head: int, hidden: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        """State ``[... d]`` of head ``head`` for hidden ``[... d]``, path ``[... head+1 d]``."""
        seen = torch.cat((hidden, path.flatten(-2)), -1)
        return self.straight[head](seen) + F.silu(self.bent[head](seen))


@dataclass
class HydraState:
    """Heads, measured ranks, the prefix layer's store and its newest output ``[d]``."""

    heads: HydraHeads
    ranks: tuple[tuple[float, ...], ...]
    store: BlockStore
    newest: torch.Tensor | None = None


class _Level(NamedTuple):
    """The nodes of one level of a template, on the device: nothing is asked to lay them out."""

    above: torch.Tensor  # [n] which row of those that went on each node hangs below
    rank: torch.Tensor  # [n] of each node below it
    ranks: int  # as many as any node needs
    going: torch.Tensor | None  # nodes that have children themselves; None = the last level


@lru_cache(maxsize=64)
def _levels(template: Template, device: torch.device) -> tuple[_Level, ...]:
    """A template, which is in breadth-first order, level by level."""
    shape, levels = shape_of(tuple(above for above, _ in template)), []
    rows = [0]  # that go on: 0 = the root, i+1 = node i
    while rows:
        nodes = [node for row in rows for node in shape.children[row]]
        above = [place for place, row in enumerate(rows) for _ in shape.children[row]]
        rank = [template[node][1] for node in nodes]
        going = [place for place, node in enumerate(nodes) if shape.children[node + 1]]
        tail = sent(going, device) if going else None
        levels.append(_Level(sent(above, device), sent(rank, device), max(rank) + 1, tail))
        rows = [nodes[place] + 1 for place in going]
    return tuple(levels)


@method(
    "drafter",
    title="Hydra",
    paper=Paper(
        "Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding", 2024, "2402.05109"
    ),
)
class Hydra:
    """Draft with heads that know the path: head i reads the embeddings of the i tokens before it.

    *Idea*: Medusa's heads guess apart, so their best guesses often do not go together; reading the
    tokens already drafted on the path repairs that for one small matrix product more a level.

    *Deviations*: one shared LM head (the target's, without the bias of theirs); three heads of one
    block that start by handing the hidden state through (four heads of up to four blocks there);
    the prefix layer of Hydra++ with a narrow MLP; the template is grown from the accuracies in the
    card; above temperature 0, which the authors' code leaves out, the tree is the same one.

    *Shapes*: level i+1: hidden ``[n d]``, path ``[n i+1 d]`` -> logits ``[n v]``. *Cost*: a prefix
    row for each committed token; one matrix and one LM-head product a level.

    *Raises*: Mismatch for heads of another target.
    """

    needs = frozenset({Need.TARGET, Need.HIDDEN})

    heads: str = knob(
        "zoo", help="Trained heads: zoo (embedded), untrained, or the folder of your own."
    )
    ranks: int = knob(8, low=1, high=16, unit="tokens", help="Guesses of each head in use.")

    def init(self, ctx: Context) -> HydraState:
        model = ctx.target.model
        attachment = load_attachment(self.heads, "hydra", model)
        measured = attachment.card.get("rank_accuracy", _UNMEASURED)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = HydraHeads(model.network.config, len(measured))
        ranks = tuple(tuple(row[: self.ranks]) for row in measured)
        heads = attachment.fill(module, model.parts.embed.weight)
        return HydraState(heads, ranks, BlockStore())

    @inference_mode()
    def propose(
        self, ctx: Context, state: HydraState, budget: Budget
    ) -> tuple[DraftTree, HydraState]:
        """Fill the template level by level; a level is one batch over the nodes that go on."""
        width = min(budget.width, ctx.vocab_size)
        template = grown_template(state.ranks, budget.nodes, budget.depth, width)
        if not template or len(ctx.tokens) < 2:
            return DraftTree.empty(ctx.device), state
        self._follow(ctx, state)
        embed = ctx.target.model.anatomy.embed
        root = torch.full((1,), ctx.tokens[-1], dtype=torch.long, device=ctx.device)
        paths = embed(root)[:, None]  # of the rows that go on, [n level+1 d]
        tokens, score = [], []
        for number, level in enumerate(_levels(template, ctx.device)):
            best = self._laws(ctx, state, number, paths).topk(level.ranks, -1)
            tokens.append(best.indices[level.above, level.rank])
            score.append(best.values[level.above, level.rank])
            if level.going is not None:
                new = embed(tokens[-1][level.going])
                paths = torch.cat((paths[level.above[level.going]], new[:, None]), 1)
        parent = tuple(above for above, _ in template)
        return DraftTree(torch.cat(tokens).clone(), parent, score=torch.cat(score).clone()), state

    def _laws(self, ctx: Context, state: HydraState, level: int, paths) -> torch.Tensor:
        hidden = state.newest.expand(len(paths), -1)
        guesses = state.heads(level, hidden, paths)
        logits = ctx.target.model.logits(guesses)[:, : ctx.vocab_size]
        return logits.float().softmax(-1)

    def _follow(self, ctx: Context, state: HydraState) -> None:
        """Feed the prefix layer every committed hidden state that it has not seen."""
        new = ctx.hidden["final"][len(state.store) :]
        if len(new):
            state.newest = state.heads.prefixed(new[None], state.store)[0, -1]

    def update(self, ctx: Context, state: HydraState, feedback: Feedback) -> HydraState:
        return state
