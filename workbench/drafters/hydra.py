"""Medusa's heads made sequential: each also reads the tokens drafted before it on the path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.method import Paper, knob, method
from workbench.core.template import grown_template
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
        heads = attachment.fill(module, model.anatomy.embed.weight)
        return HydraState(heads, ranks, BlockStore())

    @torch.inference_mode()
    def propose(
        self, ctx: Context, state: HydraState, budget: Budget
    ) -> tuple[DraftTree, HydraState]:
        """Fill the template level by level; a level is one batch over the nodes that go on."""
        width = min(budget.width, ctx.vocab_size)
        template = grown_template(state.ranks, budget.nodes, budget.depth, width)
        if not template or len(ctx.tokens) < 2:
            return DraftTree.empty(ctx.device), state
        self._follow(ctx, state)
        parent = tuple(above for above, _ in template)
        children = shape_of(parent).children
        embed = ctx.target.model.anatomy.embed
        root = embed(torch.tensor(ctx.tokens[-1:], device=ctx.device))
        tokens = torch.zeros(len(parent), dtype=torch.long, device=ctx.device)
        score = torch.zeros(len(parent), device=ctx.device)
        rows, paths, level = [0], root[:, None], 0  # rows that go on, their paths [n level+1 d]
        while rows:
            laws = self._laws(ctx, state, level, paths)
            last = rows
            rows, above = [], []
            for place, row in enumerate(last):
                nodes = list(children[row])
                best = laws[place].topk(template[nodes[-1]][1] + 1)
                ranks = torch.tensor([template[node][1] for node in nodes], device=ctx.device)
                tokens[nodes], score[nodes] = best.indices[ranks], best.values[ranks]
                going = [node + 1 for node in nodes if children[node + 1]]
                rows += going
                above += [place] * len(going)
            if rows:
                new = embed(tokens[[row - 1 for row in rows]])
                paths = torch.cat((paths[above], new[:, None]), 1)
            level += 1
        return DraftTree(tokens.clone(), parent, score=score.clone()), state

    def _laws(self, ctx: Context, state: HydraState, level: int, paths) -> torch.Tensor:
        hidden = state.newest.expand(len(paths), -1)
        guesses = state.heads(level, hidden, paths)
        logits = ctx.target.model.anatomy.logits(guesses)[:, : ctx.vocab_size]
        return logits.float().softmax(-1)

    def _follow(self, ctx: Context, state: HydraState) -> None:
        """Feed the prefix layer every committed hidden state that it has not seen."""
        new = ctx.hidden["final"][len(state.store) :]
        if len(new):
            state.newest = state.heads.prefixed(new[None], state.store)[0, -1]

    def update(self, ctx: Context, state: HydraState, feedback: Feedback) -> HydraState:
        return state
