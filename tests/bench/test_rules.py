"""All rules on the same laws, by hand and against the bound."""

from __future__ import annotations

import pytest
import torch

from workbench.bench.lossless import every_verifier
from workbench.bench.rules import SCHEMES, compare_rules, optimum
from workbench.core.errors import BadInput
from workbench.core.method import make_method, methods
from workbench.testing import saboteurs

P, Q = [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]
RULES = [card.make() for card in methods("verifier")]


def test_rejection_of_one_token_by_hand():
    (found,) = compare_rules(P, Q, 1, "independent", [make_method("verifier", "rejection")])
    assert found.kept.tolist() == pytest.approx([0.1, 0.2, 0.2])  # min(p, q)
    assert found.residual.tolist() == pytest.approx([0.8, 0.2, 0.0])  # (p - q)+ / 0.5
    assert found.accepted == pytest.approx(0.5) == pytest.approx(optimum(P, Q, 1, "independent"))
    assert found.variation < 1e-12


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("sampler", SCHEMES)
def test_no_lossless_rule_beats_the_optimum_and_one_reaches_it(sampler, k):
    best = optimum(P, Q, k, sampler)
    found = [r for r in compare_rules(P, Q, k, sampler, RULES) if r.lossless and not r.refusal]
    assert found
    for rule in found:
        assert rule.variation < 1e-12, rule.name
        assert rule.accepted <= best + 1e-9, rule.name
    if k == 1 or sampler == "top_plus_one":
        assert max(rule.accepted for rule in found) == pytest.approx(best, abs=1e-9)


def test_wrong_rules_miss_p_and_refusals_say_why():
    rows = {r.name: r for r in compare_rules(P, Q, 2, "without_replacement", every_verifier())}
    assert rows["resamples_from_target"].variation > 0.05
    assert "without" in rows["spectr"].refusal and rows["spectr"].accepted == 0
    assert "1 sibling" in rows["rejection"].refusal
    wrong = saboteurs.ResamplesFromTarget()
    (one,) = compare_rules(P, Q, 1, "independent", [wrong])
    assert torch.allclose(one.residual, torch.tensor(P, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(p=[1.0]), "two or more"),
        (dict(p=[0.5, float("nan"), 0.5]), "two or more"),
        (dict(p=[0, 0, 0]), "above 0"),
        (dict(q=[0.5, 0.5]), "3 and 2 tokens"),
        (dict(k=9), "k=9"),
        (dict(sampler="magic"), "one of independent"),
    ],
)
def test_bad_input_names_the_number(change, says):
    values = {"p": P, "q": Q, "k": 1, "sampler": "independent", "verifiers": [], **change}
    with pytest.raises(BadInput, match=says):
        compare_rules(**values)
