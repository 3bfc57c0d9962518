"""Keep the top successors that every forward computes anyway and draft from them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.method import Paper, knob, method
from workbench.core.template import grown_template
from workbench.core.tree import DraftTree
from workbench.models.native.laws import largest

UNSEEN = -1
# Value of the j-th successor when the template is grown: the chance that it is the right one,
# roughly what the paper's own 80-node template (heavily skewed to low ranks) implies.
_RANK_VALUES = (0.42, 0.16, 0.10, 0.07, 0.05, 0.04, 0.03, 0.025)


REPORTED_ROWS = 8  # of the matrix, in a round's record


@dataclass
class Recycled:
    """The matrix ``[v k]``: row t = the likeliest successors last seen after token t."""

    successors: np.ndarray
    last_written: tuple[int, ...] = ()


def template(nodes: int, depth: int, k: int) -> tuple[tuple[int, int], ...]:
    """The tree for this budget as (parent, rank) pairs, grown from the rank values."""
    values = [_RANK_VALUES[min(j, len(_RANK_VALUES) - 1)] / (1 + max(0, j - 7)) for j in range(k)]
    return grown_template((tuple(values),) * depth, nodes, depth, k)


def _move_to_front(row: np.ndarray, token: int) -> None:
    """Put ``token`` first; the others keep their order and the last one falls out."""
    others = [t for t in row.tolist() if t != token]
    row[:] = [token, *others][: len(row)]


@method(
    "drafter",
    title="Token Recycling",
    paper=Paper(
        "Turning Trash into Treasure: Accelerating Inference of Large Language Models with"
        " Token Recycling",
        2024,
        "2408.08696",
    ),
)
class TokenRecycling:
    """Draft a fixed tree template through a table of each token's last seen top successors.

    *Idea*: every forward ranks successors for every token it sees, accepted or not; keeping them
    costs nothing and needs no training, no draft model and no corpus.

    *Paper*: arXiv 2408.08696, section 3.

    *Deviations*: the template is grown for the budget instead of the paper's fixed 80 nodes, which
    cannot pay on a CPU; nodes whose token was never seen are left out instead of drafting token 0
    (as Spec-Bench's port does); a run inherits the matrix only where it carries an earlier run on,
    else it starts its own. With ``seed="prompt"`` that starts from the token pairs of the prompt,
    latest first, which the reference does not do; "none" is the paper's cold start. Above
    temperature 0, where the reference stays greedy, the drafts are the same ones.

    *Shapes*: the matrix is ``[v k]`` int32. *Cost*: one gather a level, one top-k a round.
    """

    needs = frozenset[Need]()

    k: int = knob(8, low=1, high=32, unit="tokens", help="Successors kept for each token.")
    harvest: str = knob(
        "all",
        choices=("all", "accepted"),
        help="Rows of a pass that are written back: every one, or only the accepted path.",
    )
    seed: str = knob(
        "prompt",
        choices=("prompt", "none"),
        help="Start from the successors seen in the prompt, or from an empty matrix.",
    )

    def init(self, ctx: Context) -> Recycled:
        table = np.full((ctx.vocab_size, self.k), UNSEEN, dtype=np.int32)
        if self.seed == "prompt":
            for token, after in itertools.pairwise(ctx.tokens):
                _move_to_front(table[token], after)
        return Recycled(table)

    def resume(self, ctx: Context, state: Recycled) -> Recycled:
        """Keep the matrix of the texts before."""
        return state

    def propose(self, ctx: Context, state: Recycled, budget: Budget) -> tuple[DraftTree, Recycled]:
        """Fill the template from the matrix, level by level; unseen tokens end a branch."""
        if min(budget.depth, budget.nodes, budget.width) < 1:
            return DraftTree.empty(ctx.device), state
        k = min(self.k, budget.width)
        kept: dict[int, int] = {-1: -1}
        tokens, parent = [], []
        root = ctx.tokens[-1]
        table = state.successors
        for node, (above, rank) in enumerate(template(budget.nodes, budget.depth, k)):
            if above not in kept:
                continue
            token = table[root if above < 0 else tokens[kept[above]], rank]
            if token == UNSEEN:
                continue
            kept[node] = len(tokens)
            tokens.append(int(token))
            parent.append(kept[above])
        return DraftTree(
            torch.tensor(tokens, dtype=torch.long, device=ctx.device), tuple(parent)
        ), state

    def update(self, ctx: Context, state: Recycled, feedback: Feedback) -> Recycled:
        """Overwrite the row of every token that was scored; the deepest occurrence wins."""
        tokens = [feedback.tokens[-1], *feedback.tree.token_ids]
        rows = range(len(tokens))
        if self.harvest == "accepted":
            rows = [0, *(node + 1 for node in feedback.outcome.path)]
        seen = largest(feedback.logits, self.k).places
        for row in rows:
            state.successors[tokens[row], : seen.shape[1]] = seen[row]
        told = [[tokens[row], seen[row][:4].tolist()] for row in list(rows)[:REPORTED_ROWS]]
        ctx.report("recycled", told)
        ctx.report("mentioned", sorted({t for _, after in told for t in after}))
        return Recycled(state.successors, tuple(tokens[row] for row in rows))
