"""Every rule on the same two laws, with drafts drawn one way or as each rule was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from workbench.bench.rules import SCHEMES, RuleOutcome, compare_rules, optimum

FITTING = "fitting"  # each rule's siblings are drawn as it was made for
SAMPLER_NAMES = {
    FITTING: "as each rule is made for",
    "independent": "independent (SpecInfer, SpecTr)",
    "without_replacement": "without replacement (RSD)",
    "top_plus_one": "top tokens and one draw",
}
SHORT_NAMES = {
    "independent": "independent",
    "without_replacement": "without replacement",
    "top_plus_one": "top and one draw",
}


class Compared(NamedTuple):
    """What one rule does, with which drafts, and the most that any rule could accept of them."""

    outcome: RuleOutcome
    siblings: int
    sampler: str
    optimum: float

    @property
    def drafts(self) -> str:
        """``2 siblings, without replacement``."""
        if self.siblings == 1:
            return "1 sibling"
        return f"{self.siblings} siblings, {SHORT_NAMES[self.sampler]}"


def compared(
    p: Sequence[float], q: Sequence[float], siblings: int, sampler: str, verifiers: Sequence[Any]
) -> list[Compared]:
    """One entry a rule, in their order.

    Args:
        sampler: one of the schemes, or :data:`FITTING`: the first scheme that a rule takes, and a
            single sibling for rules that take one chain only.
    """
    ways = [(siblings, sampler)]
    if sampler == FITTING:
        ways = [*((siblings, scheme) for scheme in SCHEMES), (1, "independent")]
    found: dict[str, Compared] = {}
    for count, scheme in ways:
        left = [rule for rule in verifiers if _refused(found.get(rule.name))]
        if not left:
            break
        best = optimum(p, q, count, scheme)
        for outcome in compare_rules(p, q, count, scheme, left):
            found[outcome.name] = Compared(outcome, count, scheme, best)
    return [found[rule.name] for rule in verifiers]


def _refused(entry: Compared | None) -> bool:
    return entry is None or bool(entry.outcome.refusal)
