"""Is a verification rule exact? Rule by rule, by enumerating every draft of a small pair of models.

Nothing is sampled here: chances are added up over all drafts, so a distance is exact to rounding.
What a run does on real models is audited in :mod:`workbench.bench.lossless`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from workbench.core.decoding import Verdict, Verifier
from workbench.core.errors import Mismatch
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree, shape_of
from workbench.testing import oracles
from workbench.testing.oracles import Draft, LawOf
from workbench.testing.verifier_suite import laws

EXACT = 1e-9  # rounding of the enumeration stays below; a broken rule is off by percents
LENGTH = 3

# The rules, in the order in which one rests on the other.
LAW = "A verdict is a law"
KEEP = "No token is kept more often than the target says it"
REFILL = "What is drawn after a refusal fills up the target's law"
LEAF = "After a whole accepted path the next token has the target's law"
LATER = "Later tokens have the target's law, given the first"
GREEDY = "At temperature 0 the text is the target's own"
FILTER = "Tokens that the filters bar never appear"

SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "one token": ((-1,), 4),
    "siblings": ((-1, -1, -1), 4),
    "a chain": ((-1, 0), 4),
    "a long chain": ((-1, 0, 1), 3),
    "a tree": ((-1, -1, 0, 0), 3),
}


@dataclass(frozen=True)
class Finding:
    """What one rule's check found.

    Args:
        rule: the rule, as a sentence.
        holds: whether it holds; None where it was not asked.
        distance: total variation by which it is off, at worst (0 to 1).
        error: standard error of ``distance``; 0 where everything was enumerated.
        where: the case of the worst distance.
    """

    rule: str
    holds: bool | None
    distance: float
    error: float = 0.0
    where: str = ""


@dataclass(frozen=True)
class Audit:
    """All findings about one subject, the distance of what it emits, and a reading of them."""

    subject: str
    declared_lossless: bool
    distance: float
    error: float
    findings: tuple[Finding, ...]
    reading: str

    @property
    def exact(self) -> bool:
        """Whether no rule was found broken."""
        return not any(finding.holds is False for finding in self.findings)

    @property
    def broken(self) -> str:
        """The first broken rule, which the later ones rest on; empty where all hold."""
        return next((f.rule for f in self.findings if f.holds is False), "")


class Case(NamedTuple):
    """One way of drafting, and what the rule made of all its drafts."""

    name: str
    scheme: str
    size: int
    kept: torch.Tensor  # [v] chance that x is the first token and was drafted
    redrawn: torch.Tensor  # [v] chance that x is the first token and was drawn after a refusal
    joint: torch.Tensor  # [v v v] law of the first three tokens
    wanted: torch.Tensor  # [v v v] the target's
    leaf: float  # worst distance of a bonus after a whole path
    malformed: float  # worst distance of a verdict from being a law
    plain: bool  # every draw after a refusal is from the target's law itself
    refused: float  # chance that all drafted tokens are refused


def audit_verifier(verifier: Verifier, p=None, q=None) -> Audit:
    """Check every rule on every way of drafting that the verifier accepts.

    Args:
        p, q: laws ``[v]``, v <= 4, of target and draft after every text; None = random models whose
            laws differ from text to text.
    """
    cases = list(cases_of(verifier, Sampling(1.0), p, q))
    findings = [
        _worst(LAW, cases, lambda case: case.malformed),
        _worst(KEEP, cases, lambda case: float((case.kept - first(case)).clamp_min(0).sum())),
        _worst(REFILL, cases, _refill),
        _worst(LEAF, cases, lambda case: case.leaf),
        _worst(LATER, cases, _later),
        _worst(GREEDY, list(cases_of(verifier, Sampling(0.0), p, q)), distance_of),
        _worst(FILTER, list(cases_of(verifier, Sampling(0.7, top_k=2), p, q)), _barred),
    ]
    distance = max((distance_of(case) for case in cases), default=0.0)
    return Audit(
        getattr(verifier, "name", type(verifier).__name__),
        verifier.lossless,
        distance,
        0.0,
        tuple(findings),
        reading(cases, findings),
    )


def cases_of(verifier: Verifier, sampling: Sampling, p, q) -> Iterator[Case]:
    """Every shape and every way of drawing siblings that the verifier does not refuse."""
    for shape, (parent, size) in SHAPES.items():
        size = size if p is None else len(p)
        target, draft = _models(size, sampling, p, q)
        for scheme in (*oracles.SCHEMES, "chosen"):
            several = max(map(len, shape_of(parent).children)) > 1
            if several and verifier.chains_only:
                continue
            if scheme in oracles.SCHEMES[1:] and not several:
                continue  # the same as independent
            if scheme == "chosen":
                drafts = [Draft(_likeliest(parent, draft), 1.0)]
            else:
                drafts = list(oracles.every_draft(parent, draft, scheme))
            name = f"{shape}, {scheme}" if several or scheme == "chosen" else shape
            try:
                yield _case(verifier, name, scheme, drafts, target, size)
            except Mismatch:
                continue


def _models(size: int, sampling: Sampling, p, q) -> tuple[LawOf, LawOf]:
    if p is None:
        return laws(size, 1, sampling), laws(size, 2, sampling)

    def fixed(law) -> LawOf:
        shown = sampling.law(torch.as_tensor(law, dtype=torch.float64).log())
        return oracles.remembered(lambda text: shown)

    return fixed(p), fixed(q)


def _likeliest(parent: tuple[int, ...], law_of: LawOf) -> DraftTree:
    """The draft's top tokens, as a drafter chooses them that draws nothing."""
    tokens: list[int] = []
    for node, above in enumerate(parent):
        taken = [tokens[n] for n in range(node) if parent[n] == above]
        law = law_of(oracles.text_of(tokens, parent, above)).clone()
        law[taken] = -1
        tokens.append(int(law.argmax()))
    return DraftTree(torch.tensor(tokens), parent)


def _case(verifier, name, scheme, drafts: list[Draft], target: LawOf, size: int) -> Case:
    kept, redrawn = torch.zeros(2, size, dtype=torch.float64)
    joint = torch.zeros((size,) * LENGTH, dtype=torch.float64)
    leaf, malformed, plain, refused = 0.0, 0.0, True, 0.0
    for tree, chance in drafts:
        rows = oracles.target_laws(tree, target)
        verdict = verifier.verify(tree, rows)
        malformed = max(malformed, malformation(verdict))
        for node, share in first_tokens(verdict, tree).items():
            kept[int(tree.tokens[node])] += chance * share
        stay = float(verdict.stop[0])
        if stay > 0:
            redrawn += chance * stay * verdict.bonus(0).double()
            plain = plain and bool(torch.allclose(verdict.bonus(0), rows[0], atol=1e-6))
            refused += chance * stay
        leaf = max(leaf, _leaf_error(verdict, tree, rows))
        joint += chance * oracles.emitted_law(verdict, tree, target, size, LENGTH)
    wanted = oracles.joint_law(target, size, LENGTH)
    return Case(name, scheme, size, kept, redrawn, joint, wanted, leaf, malformed, plain, refused)


def first_tokens(verdict: Verdict, tree: DraftTree) -> dict[int, float]:
    """Child of the root -> chance that the accepted path goes through it."""
    reach = verdict.reach(tree)
    return {node: reach[node + 1] for node in shape_of(tree.parent).children[0]}


def malformation(verdict: Verdict) -> float:
    """By how much stop and the reached bonuses miss being laws; infinite for NaN."""
    worst = max(0.0, -float(verdict.stop.min()), abs(float(verdict.stop.sum()) - 1))
    for row, chance in enumerate(verdict.stop.tolist()):
        if chance > 0:
            bonus = verdict.bonus(row)
            worst = max(worst, -float(bonus.min()), abs(float(bonus.sum()) - 1))
    return worst if worst == worst else float("inf")


def _leaf_error(verdict: Verdict, tree: DraftTree, rows: torch.Tensor) -> float:
    worst = 0.0
    for row, children in enumerate(shape_of(tree.parent).children):
        if row and not children and float(verdict.stop[row]) > 0:
            worst = max(worst, variation(verdict.bonus(row), rows[row]))
    return worst


def variation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Total variation: half the summed difference, the chance by which two laws differ."""
    return float((one.double() - other.double()).abs().sum()) / 2


def first(case: Case) -> torch.Tensor:
    """The target's law of the first token."""
    return case.wanted.sum((1, 2))


def distance_of(case: Case) -> float:
    """Total variation of the first three tokens."""
    return variation(case.joint, case.wanted)


def _refill(case: Case) -> float:
    return variation(case.kept + case.redrawn, first(case))


def _later(case: Case) -> float:
    """Total variation of tokens two and three, given the first, averaged over it."""
    mine, wanted = case.joint.sum((1, 2)), first(case)
    worst = 0.0
    for token in range(case.size):
        if mine[token] > 0 and wanted[token] > 0:
            gap = variation(case.joint[token] / mine[token], case.wanted[token] / wanted[token])
            worst += float(wanted[token]) * gap
    return worst


def _barred(case: Case) -> float:
    return float(case.joint[case.wanted == 0].sum())


def _worst(rule: str, cases: list[Case], measure) -> Finding:
    if not cases:
        return Finding(rule, None, 0.0)
    worst = max(cases, key=measure)
    distance = measure(worst)
    return Finding(rule, distance <= EXACT, distance, 0.0, worst.name if distance > EXACT else "")


def reading(cases: list[Case], findings: list[Finding]) -> str:
    """What the pattern of exact and inexact cases points at, in a sentence or two."""
    broken = {finding.rule for finding in findings if finding.holds is False}
    if not broken:
        return "Every rule holds in every case that this verifier accepts."
    off = [case for case in cases if distance_of(case) > EXACT]
    fine = [case for case in cases if distance_of(case) <= EXACT]
    if not off:
        return "The law is right at temperature 1; look at the rules for other temperatures."
    drawn = [case for case in off if case.scheme != "chosen"]
    said = []
    if LEAF in broken:
        said.append("The extra token is drawn from another law: a temperature or filter is missing")
    elif any(case.refused > 0.01 for case in drawn) and all(case.plain for case in drawn):
        said.append("After a refusal it draws from p again instead of the residual (p - q)+")
    depleting = (oracles.WITHOUT, oracles.TOP_PLUS_ONE)
    if all(case.scheme in depleting for case in off) and fine:
        said.append(
            "Exact for independent siblings, off for siblings drawn one after the other: a refused"
            " sibling must leave the draft's law before the next one is tested"
        )
    elif fine and all(case.name.startswith(("sibl", "a tree")) for case in off):
        said.append(
            "Exact for one token, off for several siblings: look at the order in which they are"
            " tested and at what a refusal leaves to the next"
        )
    elif fine and not any(case.name.startswith(("one", "sibl")) for case in off):
        said.append(
            "Exact for one level, off for longer paths: look at how the end of a path is chosen"
        )
    if KEEP in broken:
        said.append("Some token is kept too often, so that no later draw can repair it")
    return ". ".join(said or ["Off in every case: the acceptance itself is wrong"]) + "."
