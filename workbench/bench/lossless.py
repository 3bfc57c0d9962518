"""``workbench bench lossless``: which rule is broken where a run does not emit the target's law.

Verification rules are audited by enumeration (:mod:`workbench.bench.audit`). A run on real models
cannot be enumerated; it is asked at some of its rounds what it would emit for many drafts. Given a
draft the law of the next token is exact, so only the draft is noise, and the mean over drafts must
be the target's law. A draft that was not tried might have mattered, so noise is not taken to be
smaller than that of plain draws; where the first drafted token alone decides the next token's law,
its drafts are weighted by the declared law instead, and no noise is left but what was not tried.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.bench.audit import (
    LAW,
    LEAF,
    Audit,
    Finding,
    audit_verifier,
)
from workbench.bench.many_drafts import (
    DECLARED,
    SLACK,
    Sample,
    declared_finding,
    first_finding,
    sample_of,
    second_finding,
)
from workbench.core.decoding import Budget, Context, Need
from workbench.core.errors import Mismatch
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree
from workbench.engine.decode import check_tree, rows_of, target_laws
from workbench.engine.run import Run, RunSettings
from workbench.testing.saboteurs import WRONG_VERIFIERS

WITHIN = "Drafts stay within their budget, and fit the verifier"
ROWS = "Every row of the tree has the logits of a plain forward"
RULE = "The verification rule is exact where every draft is enumerated"
LOGIT_SLACK = 1e-3  # float32 rounding of another order of summation, at a logit scale of 10


@dataclass
class Probe:
    """A drafter that, at some rounds, asks the real one many times before it proposes once."""

    run: Run
    places: tuple[int, ...]
    draws: int
    tell: Callable[[float], None]
    cancelled: Callable[[], bool]
    index: int = 0
    asked: list[tuple[torch.Tensor, list[Sample]]] = field(default_factory=list)
    law: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # of the place under way
    row_error: float = 0.0
    refusal: str = ""

    @property
    def drafter(self) -> Any:
        return self.run.settings.drafter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.run.settings.drafter, name)

    def propose(self, ctx: Context, state: Any, budget: Budget) -> tuple[DraftTree, Any]:
        """The real proposal; before it, at the chosen rounds, the others that could have been."""
        if self.index in self.places and budget.nodes and not self.refusal:
            group = list(self._ask(ctx, state, budget))
            if group:
                self.asked.append((self.law, group))
        self.index += 1
        self.run.decoding.steps = []
        return self.drafter.propose(ctx, state, budget)

    def _ask(self, ctx: Context, state: Any, budget: Budget) -> Iterator[Sample]:
        decoding, kept = self.run.decoding, -1
        for number in range(self.draws):
            if self.cancelled():
                return
            decoding.steps = []
            rng = torch.Generator().manual_seed(7919 * self.index + number)
            own = dataclasses.replace(ctx, rng=rng, reported={}, notes=[])
            tree, _ = self.drafter.propose(own, copy.deepcopy(state), budget)
            try:
                check_tree(decoding, tree, budget)
                p, logits = self._scored(ctx, tree)
                verdict = decoding.verifier.verify(tree, p)
            except Mismatch as refusal:
                self.refusal = str(refusal)
                return
            if number == 0:
                self.law = p[0]
                kept = int(tree.tokens[0]) if len(tree) else -1
            if number < 2:
                self.row_error = max(self.row_error, self._row_error(ctx, tree, logits))
            yield sample_of(tree, verdict, p, kept)
            done = len(self.asked) + (number + 1) / self.draws
            self.tell(min(1.0, done / len(self.places)))

    def _scored(self, ctx: Context, tree: DraftTree) -> tuple[torch.Tensor, torch.Tensor]:
        session = self.run.decoding.target
        rows = rows_of(ctx.tokens[-1], tree)
        forward = session.forward(rows, (-1, *(above + 1 for above in tree.parent)))
        return target_laws(self.run.decoding, forward, ctx.tokens)[0], forward.logits

    def _row_error(self, ctx: Context, tree: DraftTree, logits: torch.Tensor) -> float:
        """Largest difference to a plain forward of the text and the deepest path."""
        row = len(tree)
        path = tree.path_to(row)
        session = self.run.settings.model.session()
        text = [*ctx.tokens, *(int(tree.tokens[node]) for node in path)]
        plain = session.forward(text).logits[len(ctx.tokens) - 1 :]
        mine = logits[[0, *(node + 1 for node in path)]]
        return float((mine.double() - plain.double()).abs().max())


def audit_run(
    settings: RunSettings,
    *,
    draws: int = 200,
    places: tuple[int, ...] = (0, 3, 6),
    tell: Callable[[float], None] = lambda fraction: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Audit:
    """What a run of these settings emits at some of its rounds, against the target's law.

    Args:
        draws: drafts that are tried at each place.
        places: rounds at which the run is asked.
        tell, cancelled: progress in [0, 1], and whether to stop early.

    Returns:
        Distances with their standard error; the laws of the next two tokens are covered.

    Raises:
        BadInput: as decoding does; a draft that does not fit is a finding.
    """
    run = Run(settings)
    probe = Probe(run, places, draws, tell, cancelled)
    run.decoding.drafter = probe
    try:
        for index, _ in enumerate(run.rounds()):
            if index >= max(places) or probe.refusal or cancelled():
                break
    except Mismatch as refusal:
        probe.refusal = probe.refusal or str(refusal)
    return _judged(settings, probe)


def _judged(settings: RunSettings, probe: Probe) -> Audit:
    asked = probe.asked
    groups = [group for _, group in asked]
    worst_row = probe.row_error <= LOGIT_SLACK * _scale(settings)
    rule = audit_verifier(settings.verifier)
    next_token = first_finding(asked)
    findings = [
        Finding(WITHIN, not probe.refusal, float(bool(probe.refusal)), where=probe.refusal),
        Finding(ROWS, worst_row if groups else None, probe.row_error, where="largest logit error"),
        declared_finding(groups),
        Finding(LAW, *_largest(groups, "malformed")),
        Finding(LEAF, *_largest(groups, "leaf")),
        Finding(RULE, rule.exact, rule.distance, where=rule.broken),
        next_token,
        second_finding(groups),
    ]
    name = f"{settings.drafter.name} with {settings.verifier.name}"
    lossless = settings.verifier.lossless
    return Audit(
        name,
        lossless,
        next_token.distance,
        next_token.error,
        tuple(findings),
        _reading(findings, rule, lossless),
    )


def _scale(settings: RunSettings) -> float:
    return 1.0 if settings.model.dtype in ("float32", "float64") else 100.0  # 8 to 10 bits


def _largest(groups: list[list[Sample]], name: str) -> tuple[bool | None, float]:
    worst = max((getattr(s, name) for group in groups for s in group), default=None)
    return (None, 0.0) if worst is None else (worst <= SLACK, float(worst))


def _reading(findings: list[Finding], rule: Audit, lossless: bool) -> str:
    broken = [finding.rule for finding in findings if finding.holds is False]
    if not broken:
        return "No rule is broken; the distance is what sampling noise alone would give."
    if not lossless:
        return "This verifier declares itself lossy: its text is not the target's."
    if broken[0] == WITHIN:
        return findings[0].where
    if broken[0] == ROWS:
        return "The tree's rows are scored wrongly: look at the mask and the positions."
    if broken[0] == DECLARED:
        return (
            "The drafter's tokens do not come from the law that it declares, so no rule that"
            " divides by that law can be exact."
        )
    if not rule.exact:
        return f"The verifier itself is wrong. {rule.reading}"
    return "The parts hold by themselves: look at how the engine joins them."


def every_verifier() -> list[Any]:
    """The registered ones, then those that are wrong on purpose."""
    return [*(card.make() for card in methods("verifier")), *WRONG_VERIFIERS]


def table(audits: list[Audit]) -> str:
    """One line for each subject, and its first broken rule."""
    lines = []
    for audit in audits:
        verdict = "exact" if audit.exact else "lossy, as declared"
        if not audit.exact and audit.declared_lossless:
            verdict = f"BROKEN: {audit.broken}"
        size = f"{audit.distance:.1e}" + (f" ± {audit.error:.1e}" if audit.error else "")
        lines.append(f"{audit.subject:34} {size:20} {verdict}")
        if not audit.exact:
            lines.append(f"{'':34} {audit.reading}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--drafter", help="audit runs with this drafter on the embedded models")
    parser.add_argument("--verifier", default="multi_round", help="of those runs (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="%(default)s")
    parser.add_argument("--draws", type=int, default=200, help="drafts at each place (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print every finding as JSON")


def run(args: argparse.Namespace) -> int:
    """Exit status 1 where a rule that calls itself lossless is broken."""
    if args.drafter:
        audits = [_of_run(args)]
        wrong = [a for a in audits if a.declared_lossless and not a.exact]
    else:
        audits = [audit_verifier(verifier) for verifier in every_verifier()]
        registered = len(audits) - len(WRONG_VERIFIERS)
        wrong = [a for a in audits[:registered] if a.declared_lossless and not a.exact]
    if args.json:
        print(json.dumps([dataclasses.asdict(audit) for audit in audits], indent=1))
    else:
        print(table(audits))
    return int(bool(wrong))


def _of_run(args: argparse.Namespace) -> Audit:
    from workbench.models.load import load
    from workbench.zoo.held_out import prompts

    drafter = make_method("drafter", args.drafter)
    settings = RunSettings(
        load("zoo:target"),
        prompts()[0].text,
        drafter,
        args.verifier,
        sampling=Sampling(args.temperature),
        draft_model=load("zoo:draft") if Need.DRAFT in drafter.needs else None,
        record_top=0,
    )
    return audit_run(settings, draws=args.draws)
