"""Every verification rule on the same p and q: what it keeps, what it redraws, beside the optimum.

All drafts of k siblings are enumerated, so the numbers are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.bench.audit import first_tokens, variation
from workbench.core.bounds import optimal_acceptance
from workbench.core.errors import BadInput, Mismatch
from workbench.core.tree import DraftTree
from workbench.testing import oracles

SCHEMES = {
    "independent": oracles.INDEPENDENT,
    "without_replacement": oracles.WITHOUT,
    "top_plus_one": oracles.TOP_PLUS_ONE,
}
MOST_TOKENS, MOST_SIBLINGS = 6, 3  # 6^3 drafts for each rule: tens of milliseconds


@dataclass(frozen=True, eq=False)
class RuleOutcome:
    """What one rule does with k siblings drawn from q where the target's law is p.

    Args:
        name, title, lossless: of the rule.
        accepted: chance that the emitted token is one of the siblings.
        kept: chance of each token to be emitted as an accepted sibling ``[v]``.
        redrawn: chance of each token to be emitted by the draw after all were refused ``[v]``.
        variation: total variation between what is emitted and p.
        refusal: why the rule does not take such siblings; then the numbers are zero.
    """

    name: str
    title: str
    lossless: bool
    accepted: float
    kept: torch.Tensor
    redrawn: torch.Tensor
    variation: float
    refusal: str = ""

    @property
    def residual(self) -> torch.Tensor:
        """The law after a refusal ``[v]``; all zero where nothing is ever refused."""
        mass = self.redrawn.sum()
        return self.redrawn / mass if mass > 0 else self.redrawn


def compare_rules(
    p: Sequence[float], q: Sequence[float], k: int, sampler: str, verifiers: Sequence[Any]
) -> list[RuleOutcome]:
    """Ask each verifier about every draft of k siblings.

    Args:
        p, q: weights ``[v]``, v <= 6; made to sum to 1.
        sampler: how siblings are drawn, one of :data:`SCHEMES`.

    Raises:
        BadInput: too many tokens or siblings to enumerate, or weights that are no law.
    """
    target, draft = _law("p", p), _law("q", q)
    if len(target) != len(draft) or len(target) > MOST_TOKENS:
        raise BadInput(f"p and q: {len(target)} and {len(draft)} tokens; use 2 to {MOST_TOKENS}")
    if not 1 <= k <= MOST_SIBLINGS:
        raise BadInput(f"k={k}: 1 to {MOST_SIBLINGS} siblings can be enumerated")
    if sampler not in SCHEMES:
        raise BadInput(f"sampler={sampler!r}: one of {', '.join(SCHEMES)}")
    drafts = list(oracles.every_draft((-1,) * k, lambda text: draft, SCHEMES[sampler]))
    return [_outcome(verifier, drafts, target) for verifier in verifiers]


def optimum(p: Sequence[float], q: Sequence[float], k: int, sampler: str) -> float:
    """The most that any lossless rule can accept of siblings drawn so."""
    return optimal_acceptance(_law("p", p), _law("q", q), k, sampler)


def _law(name: str, weights: Sequence[float]) -> torch.Tensor:
    law = torch.as_tensor(weights, dtype=torch.float64)
    if len(law) < 2 or not bool(torch.isfinite(law).all()) or float(law.min()) < 0:
        raise BadInput(f"{name}={list(weights)}: two or more numbers, none below 0")
    if float(law.sum()) <= 0:
        raise BadInput(f"{name}={list(weights)}: at least one number above 0")
    return law / law.sum()


def _outcome(verifier: Any, drafts: list, p: torch.Tensor) -> RuleOutcome:
    kept, redrawn, accepted = torch.zeros_like(p), torch.zeros_like(p), 0.0
    title, refusal = verifier.card.title, ""
    for tree, chance in drafts:
        try:
            _check_shape(verifier, tree)
            verdict = verifier.verify(tree, p.expand(len(tree) + 1, -1))
        except Mismatch as error:
            kept, redrawn, accepted, refusal = kept * 0, redrawn * 0, 0.0, str(error)
            break
        for node, share in first_tokens(verdict, tree).items():
            kept[int(tree.tokens[node])] += chance * share
        stay = float(verdict.stop[0])
        again = stay * verdict.bonus(0).double() if stay > 0 else torch.zeros_like(p)
        redrawn += chance * again
        accepted += chance * (1 - stay + float(again[tree.tokens.unique()].sum()))
    off = 0.0 if refusal else variation(kept + redrawn, p)
    return RuleOutcome(
        verifier.name, title, verifier.lossless, accepted, kept, redrawn, off, refusal
    )


def _check_shape(verifier: Any, tree: DraftTree) -> None:
    if verifier.chains_only and len(tree) > 1:
        raise Mismatch(f"verifier={verifier.name!r} takes one chain; choose 1 sibling")
