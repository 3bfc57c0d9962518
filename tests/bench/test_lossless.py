"""The auditor is right about every registered rule and names what is broken in every saboteur."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch

from workbench.bench import audit, lossless, many_drafts
from workbench.bench.audit import audit_verifier
from workbench.bench.lossless import audit_run
from workbench.cli import main
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.engine.run import RunSettings
from workbench.models import session as session_module
from workbench.models.load import load
from workbench.testing import saboteurs
from workbench.zoo.held_out import prompts

NAMED = {
    "resamples_from_target": (audit.REFILL, "draws from p again"),
    "forgets_temperature": (audit.REFILL, "temperature or filter"),
    "sorts_siblings": (audit.KEEP, "order"),
    "siblings_in_token_order": (audit.KEEP, "order"),
    "forgets_to_zero_q": (audit.KEEP, "must leave the draft's law"),
    "shrinks_rho": (audit.KEEP, "kept too often"),
    "stops_at_first_failure": (audit.REFILL, "end of a path"),
}
RULES = [card.make() for card in methods("verifier")]


@cache
def zoo():
    return load("zoo:target", device="cpu"), load("zoo:draft", device="cpu")


def settings(drafter="draft_model", verifier="rejection", temperature=0.8, **changes):
    target, draft = zoo()
    values = dict(sampling=Sampling(temperature), draft_model=draft, record_top=0)
    return RunSettings(target, prompts()[0].text, drafter, verifier, **{**values, **changes})


@pytest.mark.parametrize("verifier", RULES, ids=lambda v: v.name)
def test_every_registered_rule_is_what_it_declares(verifier):
    found = audit_verifier(verifier)
    assert found.exact == verifier.lossless
    assert (found.distance < 1e-12) == verifier.lossless
    assert all(finding.holds is not None for finding in found.findings), "a rule was not asked"


@pytest.mark.parametrize("wrong", saboteurs.WRONG_VERIFIERS, ids=lambda v: v.name)
def test_each_saboteur_is_named(wrong):
    found = audit_verifier(wrong)
    rule, reading = NAMED[wrong.name]
    assert found.declared_lossless and not found.exact
    assert found.broken == rule and reading in found.reading
    assert found.distance > 0.01


def test_laws_of_the_callers_own():
    p, q = [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]
    assert audit_verifier(make_method("verifier", "multi_round"), p, q).exact
    found = audit_verifier(saboteurs.ResamplesFromTarget(), p, q)
    # One drafted token: refused with chance sum (q-p)+ = 0.6, then drawn from p, not the rest.
    one = next(c for c in audit.cases_of(saboteurs.ResamplesFromTarget(), Sampling(1.0), p, q))
    wrong = torch.tensor([0.1, 0.1, 0.2]) + 0.6 * torch.tensor(p)
    torch.testing.assert_close((one.kept + one.redrawn).float(), wrong)
    assert found.broken == audit.REFILL


@pytest.mark.parametrize(
    ("drafter", "verifier"),
    [
        ("draft_model", "rejection"),
        ("draft_model", "block"),
        ("draft_tree", "rsd"),
        ("token_recycling", "multi_round"),
        ("medusa", "exact_match"),
    ],
)
def test_honest_runs_break_no_rule(drafter, verifier):
    found = audit_run(settings(drafter, verifier), draws=60, places=(1, 3))
    assert found.exact, [f for f in found.findings if f.holds is False]
    assert "No rule is broken" in found.reading
    asked = [finding.rule for finding in found.findings if finding.holds is not None]
    assert many_drafts.FIRST in asked and lossless.ROWS in asked


@pytest.mark.parametrize(
    ("drafter", "verifier", "rule"),
    [
        (saboteurs.LiesAboutProbs(), "rejection", many_drafts.DECLARED),
        (saboteurs.KeepsUnfilteredProbs(), "rejection", many_drafts.DECLARED),
        (saboteurs.ExceedsItsBudget(), "rejection", lossless.WITHIN),
        ("draft_model", saboteurs.ResamplesFromTarget(), lossless.RULE),
        ("draft_model", saboteurs.ForgetsTemperature(), audit.LEAF),
        ("draft_tree", "rejection", lossless.WITHIN),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_run_is_named(drafter, verifier, rule):
    found = audit_run(settings(drafter, verifier), draws=60, places=(1, 3))
    assert not found.exact and found.broken == rule, found.findings


def test_a_wrong_rule_shows_in_the_runs_own_law():
    found = audit_run(settings(verifier=saboteurs.ResamplesFromTarget()), draws=80, places=(1, 3))
    first = next(f for f in found.findings if f.rule == many_drafts.FIRST)
    assert first.holds is False and found.distance == first.distance > 0.02
    assert "draws from p again" in found.reading


def test_lossy_is_measured_not_blamed():
    found = audit_run(settings("medusa", "typical"), draws=4, places=(3, 6))
    assert not found.declared_lossless and found.distance > 0.05
    assert "declares itself lossy" in found.reading


def test_greedy_runs_are_audited_too():
    assert audit_run(settings("draft_model", "exact_match", 0.0), draws=4, places=(0, 2)).exact


def test_rows_that_see_too_much_are_named(monkeypatch):
    true_block = session_module.tree_block

    def row_positions(parent, dtype, device):
        mask, _ = true_block(parent, dtype, device)
        return mask, torch.arange(len(parent))

    monkeypatch.setattr(session_module, "tree_block", row_positions)
    tree = make_method("drafter", "medusa")
    found = audit_run(settings(tree, "exact_match", 0.0), draws=2, places=(0,))
    assert found.broken == lossless.ROWS and "mask and the positions" in found.reading


def test_an_audit_can_be_stopped_and_tells_how_far_it_is():
    told: list[float] = []
    found = audit_run(
        settings(), draws=50, places=(0,), tell=told.append, cancelled=lambda: len(told) >= 5
    )
    assert len(told) == 5 and told == sorted(told)
    assert found.subject == "draft_model with rejection"


def test_the_command_prints_every_rule_and_fails_for_none_registered(capsys):
    assert main(["bench", "lossless"]) == 0
    out = capsys.readouterr().out
    assert all(card.name in out for card in methods("verifier"))
    assert out.count("BROKEN") == len(saboteurs.WRONG_VERIFIERS)
    assert main(["bench", "lossless", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(RULES) + len(saboteurs.WRONG_VERIFIERS)
