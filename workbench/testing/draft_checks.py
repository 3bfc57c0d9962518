"""What a proposal must be, every draft that can come, and texts compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from workbench.core.decoding import Budget, Context
from workbench.core.tree import DraftTree, shape_of
from workbench.testing import oracles
from workbench.testing.drafter_runs import Drive
from workbench.testing.oracles import Draft


def check_counts(laws: torch.Tensor, text: Sequence[int], start: int) -> None:
    """Each token occurs as often as its laws say, to five standard deviations.

    Given the text so far a token is one draw of its law, so count minus summed probability is a
    martingale whose variance is the sum of p(1-p).
    """
    p = laws[start - 1 : -1].double()
    drawn = torch.zeros_like(p)
    drawn[torch.arange(len(p)), torch.tensor(text[start:])] = 1
    spread = (p * (1 - p)).sum(0).sqrt().clamp_min(1e-9)
    off = ((drawn - p).sum(0) / spread).abs()
    assert float(off.max()) < 5, f"counts are off by {off.tolist()} standard deviations"
    assert float(p[drawn.bool()].min()) > 0, "a token that its law cannot give"


def check_tree(tree: DraftTree, budget: Budget, ctx: Context) -> None:
    """The proposal is within its budget and declares its laws in full."""
    deepest, widest = max(tree.depth, default=0), 0
    for children in shape_of(tree.parent).children:
        widest = max(widest, len(children))
    what = f"{len(tree)} nodes, depth {deepest}, width {widest} for {budget}"
    assert len(tree) <= budget.nodes, what
    assert deepest <= budget.depth, what
    assert widest <= budget.width, what
    assert tree.tokens.dtype == torch.long and tree.tokens.device == ctx.device
    if not len(tree):
        return
    low, high = int(tree.tokens.min()), int(tree.tokens.max())
    assert 0 <= low and high < ctx.vocab_size, f"token {low} or {high} is no token of the target"
    if tree.drawn:
        assert tree.probs.shape == (len(tree), ctx.vocab_size)
        assert float(tree.probs.min()) >= 0
        assert torch.allclose(tree.probs.sum(-1), torch.ones(len(tree), dtype=tree.probs.dtype))
        drawn_with = tree.probs[torch.arange(len(tree)), tree.tokens]
        assert float(drawn_with.min()) > 0, "a token that its own law cannot give"
        if ctx.sampling.greedy:
            assert float(drawn_with.min()) == 1, "greedy, yet the declared law is not one-hot"


def draws_of(tree: DraftTree) -> Iterator[tuple[tuple, torch.Tensor, int]]:
    """(history, declared law, token) of each node; history = path and earlier siblings."""
    tokens = tree.tokens.tolist()
    for row, children in enumerate(shape_of(tree.parent).children):
        path = oracles.text_of(tokens, tree.parent, row - 1)
        for place, child in enumerate(children):
            # Drawn independently, siblings do not depend on each other, nor does their law.
            earlier = () if tree.with_replacement else tuple(tokens[c] for c in children[:place])
            yield (path, place, earlier), tree.probs[child], tokens[child]


def collect_drafts(drive: Drive, budget: Budget, most_seeds: int = 6000) -> list[Draft]:
    """Every draft that ``drive`` can propose, with the chance that its ``probs`` declare.

    Raises:
        AssertionError: the declared chances do not add up to 1 over all drafts found.
    """
    found: dict[tuple, Draft] = {}
    mass = 0.0
    for seed in range(most_seeds):
        tree = drive.propose(budget, seed=seed)
        key = (tuple(tree.tokens.tolist()), tree.parent)
        if key not in found:
            chance = 1.0
            if tree.drawn:
                for _, law, token in draws_of(tree):
                    chance *= float(law[token])
            found[key] = Draft(tree, chance)
            mass += chance
        if abs(mass - 1) < 1e-12:
            return list(found.values())
        assert mass < 1 + 1e-9, f"drafts found have a declared mass of {mass}"
    raise AssertionError(f"{most_seeds} seeds found drafts of declared mass {mass}")


def check_same_text(got: Sequence[int], wanted: Sequence[int], label: str) -> None:
    """Token-identical, or the place where they part."""
    for place, (one, other) in enumerate(zip(got, wanted, strict=False)):
        assert one == other, f"{label}: token {place} is {one}, target-only decoding has {other}"
    assert len(got) == len(wanted), f"{label}: {len(got)} tokens instead of {len(wanted)}"
