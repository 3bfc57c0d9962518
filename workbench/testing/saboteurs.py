"""Methods that are wrong on purpose, one classic mistake each; the suites must catch them all.

Every mistake here was found in a published engine. None is registered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from workbench.core.decoding import Budget, Context, Verdict
from workbench.core.tree import DraftTree, shape_of
from workbench.drafters.draft_model import DraftModel
from workbench.verifiers.multi_round import MultiRound


@dataclass(frozen=True)
class ResamplesFromTarget:
    """After a rejection it draws from p instead of the residual."""

    name = "resamples_from_target"
    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        return replace(MultiRound().verify(tree, p), bonus=p.__getitem__)


@dataclass(frozen=True)
class ForgetsTemperature:
    """Its bonus comes from a flatter law than the one that was asked for."""

    name = "forgets_temperature"
    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        honest = MultiRound().verify(tree, p)

        def bonus(row: int) -> torch.Tensor:
            flat = honest.bonus(row).sqrt()
            return flat / flat.sum()

        return replace(honest, bonus=bonus)


@dataclass(frozen=True)
class SortsSiblings:
    """It tests siblings by falling probability, not in the order in which they were drawn."""

    name = "sorts_siblings"
    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        order: list[int] = []
        place = {-1: -1}
        rows = [-1]
        while rows:
            above = rows.pop(0)
            children = sorted(
                shape_of(tree.parent).children[above + 1],
                key=lambda node, above=above: -float(p[above + 1, tree.tokens[node]]),
            )
            for node in children:
                place[node] = len(order)
                order.append(node)
                rows.append(node)
        mixed = DraftTree(
            tree.tokens[order],
            tuple(place[tree.parent[node]] for node in order),
            None if tree.probs is None else tree.probs[order],
            candidate=None if tree.candidate is None else tree.candidate[order],
        )
        told = MultiRound().verify(mixed, p[[0, *(node + 1 for node in order)]])
        back = torch.tensor([place[node] for node in range(len(tree))], dtype=torch.long)
        stop = torch.cat((told.stop[:1], told.stop[1:][back]))
        return Verdict(stop, lambda row: told.bonus(place[row - 1] + 1), told.accept[back])


class LiesAboutProbs(DraftModel):
    """Chooses the likeliest token but says that it was drawn from the draft's law."""

    def propose(self, ctx: Context, state, budget: Budget):
        tree, state = DraftModel.propose(self, ctx, state, budget)
        if tree.probs is None or not len(tree):
            return tree, state
        return replace(tree, tokens=tree.probs.argmax(-1)), state


class KeepsUnfilteredProbs(DraftModel):
    """Draws from the filtered law but reports a flatter one, as if no filter had been applied."""

    def propose(self, ctx: Context, state, budget: Budget):
        tree, state = DraftModel.propose(self, ctx, state, budget)
        if tree.probs is None or not len(tree):
            return tree, state
        flat = (tree.probs + 0.2) / (tree.probs + 0.2).sum(-1, keepdim=True)
        return replace(tree, probs=flat), state


class ExceedsItsBudget(DraftModel):
    """Drafts one level more than it may."""

    def propose(self, ctx: Context, state, budget: Budget):
        wider = replace(budget, depth=budget.depth + 1, nodes=budget.nodes + 1)
        return DraftModel.propose(self, ctx, state, wider)
