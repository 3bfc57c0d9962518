"""Arithmetic that several verification rules share: residuals and one-hot drafts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float

from workbench.core.transfer import sent
from workbench.core.tree import DraftTree, shape_of


def residual(p: Float[torch.Tensor, "v"], q: Float[torch.Tensor, "v"]) -> Float[torch.Tensor, "v"]:
    """norm((p - q)+): what must be drawn after a rejection so that the sum of both is p.

    Where p and q are equal no rejection can happen; p is returned so that rounding cannot give NaN.
    """
    return _normed((p - q).clamp_min_(0), p)


def without(p: Float[torch.Tensor, "v"], token: int) -> Float[torch.Tensor, "v"]:
    """The residual after refusing a *chosen* token: its mass removed, the rest renormalised."""
    rest = p.clone()
    rest[token] = 0
    return _normed(rest, p)


def _normed(rest: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """``rest`` with mass 1, or ``otherwise`` where it has none; a GPU is not asked which."""
    mass = rest.sum()
    if mass.device.type == "cpu":
        return rest / mass if mass > 0 else otherwise
    return torch.where(mass > 0, rest / mass.clamp_min(torch.finfo(rest.dtype).tiny), otherwise)


def chances_of(
    laws: Float[torch.Tensor, "rows v"], rows: Iterable[int], tokens: Iterable[int]
) -> list[float]:
    """What the law of each row gives its token. A tree has few nodes: plain lookups are soonest."""
    if laws.device.type == "cpu":
        numbers = laws.detach().numpy()
        return [float(numbers[at]) for at in zip(rows, tokens, strict=True)]
    places = [row * laws.shape[-1] + token for row, token in zip(rows, tokens, strict=True)]
    return laws.reshape(-1)[sent(places, laws.device)].tolist()


def distinct_children(tree: DraftTree, tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """Children of each row that can be accepted: candidates, first occurrence of a token only."""
    candidate = None if tree.candidate is None else tree.candidate.tolist()
    rows = []
    for children in shape_of(tree.parent).children:
        seen: set[int] = set()
        kept = []
        for child in children:
            if tokens[child] in seen or (candidate and not candidate[child]):
                continue
            seen.add(tokens[child])
            kept.append(child)
        rows.append(tuple(kept))
    return rows


def one_hot_rows(tree: DraftTree) -> list[bool]:
    """Which nodes are certain: chosen, or drawn from a law that has one token only."""
    if tree.probs is None:
        return [True] * len(tree)
    rows = torch.arange(len(tree), device=tree.probs.device)
    return (tree.probs[rows, tree.tokens] >= 1 - 1e-12).tolist()


def matched(
    p: Float[torch.Tensor, "v"], tokens: Sequence[int], children: tuple[int, ...]
) -> tuple[list[float], Float[torch.Tensor, "v"]]:
    """Draw one token of p and see whether a child carries it: the best rule for certain children.

    Args:
        tokens: of all nodes.
        children: distinct ones of this row.

    Returns:
        The chance to walk on to each child, and p without the children's tokens, renormalised.
    """
    if not children:
        return [], p
    carried = [tokens[child] for child in children]
    chances = p[carried].tolist()
    rest = p.clone()
    rest[carried] = 0
    mass = rest.sum()
    return chances, torch.where(mass > 0, rest / mass.clamp_min(torch.finfo(p.dtype).tiny), p)
