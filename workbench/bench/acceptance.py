"""Acceptance of the rules on the same laws: what each keeps of k siblings, beside the optimum.

p and q are those of a target and a draft at places of held-out text. Drafts are sampled; given a
draft, the chance that the rule's output is one of its tokens is exact, so only the draft is noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workbench.core import siblings
from workbench.core.bounds import optimal_acceptance
from workbench.core.method import make_method
from workbench.core.sampling import Sampling, fit_vocabulary
from workbench.core.tree import DraftTree
from workbench.models.model import Model

# Rule, sampler of its siblings, name of the sampler's bound.
RULES = (
    ("multi_round", "independent"),
    ("spectr", "independent"),
    ("rsd", "without_replacement"),
    ("mdsd_optimal", "top_plus_one"),
)


@dataclass(frozen=True)
class Place:
    """The laws of target and draft after one prefix, ``[v]`` each, in double precision."""

    p: torch.Tensor
    q: torch.Tensor


def places_of(
    target: Model, draft: Model, texts: list[str], each: int, sampling: Sampling
) -> list[Place]:
    """Laws at ``each`` evenly spread places of every text."""
    found = []
    for text in texts:
        ids = target.encode(text)
        p = sampling.law(target.session().forward(ids).logits.double())
        q = draft.session().forward(ids).logits.double()
        q = sampling.law(fit_vocabulary(q, p.shape[-1]))
        step = max(1, len(ids) // each)
        found += [Place(p[i], q[i]) for i in range(len(ids) - 1, 0, -step)[:each]]
    return found


def drawn(place: Place, k: int, sampler: str, generator: torch.Generator) -> DraftTree:
    """k siblings below the root by one of the samplers of :mod:`workbench.core.bounds`."""
    size = len(place.q)

    def uniforms(count: int) -> torch.Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64)

    if sampler == "independent":
        found = siblings.independent(place.q, uniforms(k))
    elif sampler == "without_replacement":
        found = siblings.without_replacement(place.q, uniforms(size), k)
    else:
        found = siblings.top_and_one(place.q, uniforms(1), k)
    count = len(found.tokens)
    together = sampler == "independent"
    return DraftTree(found.tokens, (-1,) * count, found.laws, with_replacement=together)


def accepted(rule: str, tree: DraftTree, p: torch.Tensor) -> float:
    """Chance that the rule's output is one of the siblings' tokens."""
    verdict = make_method("verifier", rule).verify(tree, p.expand(len(tree) + 1, -1))
    stay = float(verdict.stop[0])
    return 1 - stay + stay * float(verdict.bonus(0)[tree.tokens.unique()].sum())


def acceptance_table(
    places: list[Place], ks: tuple[int, ...] = (1, 2, 4, 8), draws: int = 16, seed: int = 0
) -> list[dict]:
    """One row for each rule and k: acceptance at every place, and the sampler's optimum there.

    Returns:
        Rows with ``rule``, ``sampler``, ``k``, ``accepted [places]`` and ``optimal [places]``.
    """
    rows = []
    for k in ks:
        best = {
            sampler: [optimal_acceptance(place.p, place.q, k, sampler) for place in places]
            for sampler in {sampler for _, sampler in RULES}
        }
        for rule, sampler in RULES:
            generator, rates = torch.Generator().manual_seed(seed), []
            for place in places:
                tries = [
                    accepted(rule, drawn(place, k, sampler, generator), place.p)
                    for _ in range(draws)
                ]
                rates.append(sum(tries) / draws)
            rows.append(
                {
                    "rule": rule,
                    "sampler": sampler,
                    "k": k,
                    "accepted": rates,
                    "optimal": best[sampler],
                }
            )
    return rows
