"""Methods that are wrong on purpose, one classic mistake each; the suites must catch them all.

Every mistake here was found in a published engine. None is registered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from workbench.core.decoding import Budget, Context, Verdict
from workbench.core.method import MethodCard
from workbench.core.tree import DraftTree, shape_of
from workbench.drafters.draft_model import DraftModel
from workbench.verifiers.block import Block
from workbench.verifiers.multi_round import MultiRound
from workbench.verifiers.spectr import scale


class WrongVerifier:
    """What makes a run take it: a family, a name, no knobs. The registry does not know it."""

    family = "verifier"
    name = ""
    lossless = True
    chains_only = False
    card: MethodCard

    def __init_subclass__(cls) -> None:
        title = (cls.__doc__ or "").strip().split(".")[0]
        cls.card = MethodCard("verifier", cls.name, title, None, cls, ())


@dataclass(frozen=True)
class ResamplesFromTarget(WrongVerifier):
    """After a rejection it draws from p instead of the residual."""

    name = "resamples_from_target"

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        return replace(MultiRound().verify(tree, p), bonus=p.__getitem__)


@dataclass(frozen=True)
class ForgetsTemperature(WrongVerifier):
    """Its bonus comes from a flatter law than the one that was asked for."""

    name = "forgets_temperature"

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        honest = MultiRound().verify(tree, p)

        def bonus(row: int) -> torch.Tensor:
            flat = honest.bonus(row).sqrt()
            return flat / flat.sum()

        return replace(honest, bonus=bonus)


@dataclass(frozen=True)
class SortsSiblings(WrongVerifier):
    """It tests siblings by falling probability, not in the order in which they were drawn."""

    name = "sorts_siblings"

    def _key(self, token: int, law: torch.Tensor) -> float:
        return -float(law[token])

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        order: list[int] = []
        place = {-1: -1}
        rows = [-1]
        while rows:
            above = rows.pop(0)
            children = sorted(
                shape_of(tree.parent).children[above + 1],
                key=lambda node, above=above: self._key(int(tree.tokens[node]), p[above + 1]),
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


@dataclass(frozen=True)
class SiblingsInTokenOrder(SortsSiblings):
    """It tests siblings by rising token id, as a set that was sorted comes out."""

    name = "siblings_in_token_order"

    def _key(self, token: int, law: torch.Tensor) -> float:
        return token


@dataclass(frozen=True)
class ForgetsToZeroQ(WrongVerifier):
    """Siblings without replacement, each tested against the first one's whole law."""

    name = "forgets_to_zero_q"

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        if tree.probs is None:
            return MultiRound().verify(tree, p)
        eldest = [tree.parent.index(above) for above in tree.parent]
        return MultiRound().verify(replace(tree, probs=tree.probs[eldest]), p)


@dataclass(frozen=True)
class ShrinksRho(WrongVerifier):
    """k-SEQ with 0.9 of the scale that makes its residual non-negative."""

    name = "shrinks_rho"

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        if tree.probs is None or not tree.with_replacement:
            return MultiRound().verify(tree, p)
        accept = torch.zeros(len(tree), dtype=p.dtype)
        left = []
        for row, children in enumerate(shape_of(tree.parent).children):
            rest = p[row]
            if children:
                law, k = tree.probs[children[0]].double(), len(children)
                rho = 0.9 * scale(p[row].double(), law, k)[0]
                kept = torch.minimum(law, p[row].double() / rho)
                beta, remaining = float(kept.sum()), 1.0
                for child in children:
                    token = int(tree.tokens[child])
                    chance = min(1.0, float(kept[token] / law[token]))
                    accept[child] = remaining * chance
                    remaining *= 1 - chance
                met = 1 - (1 - min(beta, 1.0)) ** k
                rest = (p[row] - kept * met / beta).clamp_min(0) if beta > 0 else p[row]
                rest = rest / rest.sum() if float(rest.sum()) > 1e-12 else p[row]
            left.append(rest)
        return Verdict.from_accept(tree, accept, left.__getitem__)


@dataclass(frozen=True)
class StopsAtFirstFailure(WrongVerifier):
    """Block verification that ends at the first length refused, not after the last allowed."""

    name = "stops_at_first_failure"
    chains_only = True

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        honest = Block().verify(tree, p)
        stop, refused = honest.stop.tolist(), 1.0
        allowed = []  # of each length, given that no longer one was
        for kept in range(len(tree), -1, -1):
            allowed.append(min(1.0, stop[kept] / refused) if refused > 0 else 0.0)
            refused -= stop[kept]
        allowed.reverse()
        reach, stops = 1.0, []
        for length in range(len(tree)):
            stops.append(reach * (1 - allowed[length + 1]))
            reach *= allowed[length + 1]
        return replace(honest, stop=torch.tensor([*stops, reach], dtype=p.dtype))


WRONG_VERIFIERS = (
    ResamplesFromTarget(),
    ForgetsTemperature(),
    SortsSiblings(),
    SiblingsInTokenOrder(),
    ForgetsToZeroQ(),
    ShrinksRho(),
    StopsAtFirstFailure(),
)


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
