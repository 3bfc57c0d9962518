"""What many drafts at one place say together: means that must be 0 where the rules hold."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch

from workbench.bench.audit import LATER, Finding, malformation, variation
from workbench.core.decoding import Verdict
from workbench.core.tree import DraftTree, shape_of

DECLARED = "Drafted tokens follow the law that the drafter declares"
FIRST = "The next token has the target's law"
DEVIATIONS = 4.5  # of the worst token; with 20 tokens at 3 places a false alarm in 2500 audits
EXPECTED = 5  # tokens that occur less often among the drafts are taken together
SLACK = 1e-4  # float32 rounding of a law


class Sample(NamedTuple):
    """What one draft said. ``gaps`` have mean 0 over drafts where the rule behind them holds."""

    first: torch.Tensor  # [v] law of the next token, minus the target's
    second: torch.Tensor  # [v] weighted law of the token after a kept one, minus the target's
    weight: float  # how often that kept token comes first
    second_law: torch.Tensor | None  # [v] the target's after that token, where it was drafted
    token: int  # the first sibling; -1 where nothing was drafted
    declared: torch.Tensor | None  # [v] the law it was drawn from
    alone: bool  # it has no siblings
    leaf: float
    malformed: float


def sample_of(tree: DraftTree, verdict: Verdict, p: torch.Tensor, kept: int) -> Sample:
    """The exact laws of one draft, as gaps to what they must be on average."""
    stop, reach = verdict.stop.tolist(), verdict.reach(tree)
    children = shape_of(tree.parent).children
    first = torch.zeros_like(p[0]).double()
    if stop[0] > 0:
        first += stop[0] * verdict.bonus(0).double()
    second, weight, law = torch.zeros_like(first), float(first[kept]) if kept >= 0 else 0.0, None
    for node in children[0]:
        token = int(tree.tokens[node])
        first[token] += reach[node + 1]
        if token == kept and reach[node + 1] > 0:
            weight, law = weight + reach[node + 1], p[node + 1].double()
            second += _next_law(tree, verdict, node, reach) - reach[node + 1] * law
    leaf = 0.0
    for row, below in enumerate(children):
        if row and not below and stop[row] > 0:
            leaf = max(leaf, variation(verdict.bonus(row), p[row]))
    eldest = children[0][0] if children[0] else None
    declared = tree.probs[eldest].double() if tree.drawn and eldest is not None else None
    return Sample(
        first - p[0].double(),
        second,
        weight,
        law,
        -1 if eldest is None else int(tree.tokens[eldest]),
        declared,
        len(children[0]) == 1,
        leaf,
        malformation(verdict),
    )


def _next_law(tree: DraftTree, verdict: Verdict, node: int, reach: list[float]) -> torch.Tensor:
    """Law of the token after ``node`` times the chance that the path goes through it."""
    stop = float(verdict.stop[node + 1])
    law = verdict.bonus(node + 1).double()
    law = law * stop if stop > 0 else torch.zeros_like(law)
    for child in shape_of(tree.parent).children[node + 1]:
        law[int(tree.tokens[child])] += reach[child + 1]
    return law


class Cells(NamedTuple):
    """Means over drafts that must be 0, and what plain draws would spread them by."""

    gaps: torch.Tensor  # [draws v]
    law: torch.Tensor  # [v] whose variance bounds that of the gaps from below
    weight: float = 1.0  # share of the draws that speak of this law
    seen: torch.Tensor | None = None  # [v] how often a token came, where each draw is one token


def _mean_zero(rule: str, cells: list[Cells]) -> Finding:
    """Whether the means are 0: each token that occurs often enough, and all others together."""
    if not cells:
        return Finding(rule, None, 0.0)
    holds, distance, error = True, 0.0, 0.0
    for gaps, law, weight, seen in cells:
        count = len(gaps)
        often = law * count * weight >= EXPECTED
        if seen is not None:
            often |= seen >= EXPECTED
        joined = torch.cat((gaps[:, often], gaps[:, ~often].sum(1, keepdim=True)), 1)
        chance = torch.cat((law[often], law[~often].sum()[None]))
        variance = torch.maximum(joined.var(0), chance * (1 - chance) * weight)
        holds &= bool(
            (joined.mean(0).abs() <= DEVIATIONS * (variance / count).sqrt() + SLACK).all()
        )
        distance += variation(gaps.mean(0), torch.zeros_like(law)) / weight / len(cells)
        noise = (gaps.var(0) / count).sqrt().sum() / (2 * torch.pi) ** 0.5
        error += float(noise) / weight / len(cells)
    return Finding(rule, holds, distance, error)


def declared_finding(groups: list[list[Sample]]) -> Finding:
    """The first sibling's tokens against the law that came with them."""
    cells = []
    for group in groups:
        if len(group) > 1 and group[0].declared is not None:
            law = group[0].declared
            seen = torch.zeros(len(group), len(law), dtype=law.dtype)
            seen[range(len(group)), [sample.token for sample in group]] = 1
            gaps = seen - torch.stack([sample.declared for sample in group])
            cells.append(Cells(gaps, law, 1.0, seen.sum(0)))
    return _mean_zero(DECLARED, cells)


def first_finding(asked: list[tuple[torch.Tensor, list[Sample]]]) -> Finding:
    """The next token's law: by the declared weights where these leave no noise, else by counts."""
    sure = [_weighted(law.double(), group) for law, group in asked]
    if sure and None not in sure:
        worst = max(gap for gap in sure if gap is not None)
        return Finding(
            FIRST, worst <= SLACK, worst, where="at least; what was not tried adds to it"
        )
    gaps = [(law.double(), torch.stack([s.first for s in group])) for law, group in asked]
    return _mean_zero(FIRST, [Cells(gap, law) for law, gap in gaps if len(gap) > 1])


def _weighted(law: torch.Tensor, group: list[Sample]) -> float | None:
    """How much mass lies above the target's law whatever the untried drafts do.

    None where the first drafted token does not decide the law of the next one.
    """
    if group[0].declared is None or not all(sample.alone for sample in group):
        return None
    by_token: dict[int, list[torch.Tensor]] = defaultdict(list)
    for sample in group:
        by_token[sample.token].append(sample.first)
    if any(
        float((gap - gaps[0]).abs().max()) > SLACK for gaps in by_token.values() for gap in gaps
    ):
        return None
    share = {token: float(group[0].declared[token]) for token in by_token}
    over = torch.stack([share[token] * gaps[0] for token, gaps in by_token.items()]).sum(0)
    untried = 1 - sum(share.values())  # their laws are not negative, so they can only add
    return float((over - untried * law).clamp_min(0).sum())


def second_finding(groups: list[list[Sample]]) -> Finding:
    cells = []
    for group in groups:
        weight = sum(sample.weight for sample in group) / len(group)
        law = next((s.second_law for s in group if s.second_law is not None), None)
        if law is not None and weight * len(group) > EXPECTED:
            cells.append(Cells(torch.stack([s.second for s in group]), law, weight))
    return _mean_zero(LATER, cells)
