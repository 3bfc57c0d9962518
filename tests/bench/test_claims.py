"""The claims table: its statistics by hand, its rows complete, its acceptance below the optimum."""

import numpy as np
import pytest
import torch

from workbench.bench.acceptance import Place, acceptance_table, accepted, drawn
from workbench.bench.claims import PARTS, REPORT, page, section, sections
from workbench.bench.comparisons import CLAIMS, MEASURES
from workbench.bench.judging import claim_row, judged
from workbench.core.method import find_method, make_method


def test_verdicts_by_hand():
    low, high = np.array([1.0, 1.1, 0.9, 1.0]), np.array([2.0, 2.2, 1.9, 2.1])
    assert judged(high, low)["verdict"] == "holds"
    assert judged(low, high)["verdict"] == "does not hold here"
    mixed = np.array([1.5, 0.5, 1.4, 0.6])
    row = judged(mixed, low)
    assert row["verdict"] == "open" and row["low"] < 0 < row["high"]
    assert row["difference"] == pytest.approx(float((mixed - low).mean()))


def test_every_side_is_a_run_that_can_be_set_up():
    for claim in CLAIMS:
        assert claim.measure in MEASURES
        for side in (claim.first, claim.second):
            make_method("drafter", side.drafter, **dict(side.knobs))
            make_method("policy", side.policy, **dict(side.policy_knobs))
            make_method("schedule", side.schedule, **dict(side.schedule_knobs))
            find_method("verifier", side.verifier)
        assert claim.first != claim.second


def test_acceptance_meets_the_optimum_where_the_rule_does():
    generator = torch.Generator().manual_seed(3)
    places = []
    for _ in range(6):
        raw = 1.5 * torch.randn(2, 6, generator=generator, dtype=torch.float64)
        places.append(Place(*raw.softmax(-1)))
    rows = {(r["rule"], r["k"]): r for r in acceptance_table(places, (2,), draws=400)}
    for (rule, _), row in rows.items():
        rate, best = np.mean(row["accepted"]), np.mean(row["optimal"])
        assert rate <= best + 0.02, rule
        if rule == "mdsd_optimal":
            assert rate == pytest.approx(best, abs=0.02)
        else:
            assert rate < best - 1e-3, rule


def test_a_drawn_place_is_what_its_rule_takes():
    generator = torch.Generator().manual_seed(1)
    law = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    place = Place(law, law.flip(0))
    for rule, sampler in (("spectr", "independent"), ("rsd", "without_replacement")):
        chance = accepted(rule, drawn(place, 2, sampler, generator), place.p)
        assert 0 <= chance <= 1
    tree = drawn(place, 3, "top_plus_one", generator)
    assert tree.tokens[:2].tolist() == [3, 2] and not tree.with_replacement


def table(gain: float) -> dict:
    row = claim_row(
        "x", "More.", "tokens", np.array([1.0, 2.0]), np.array([1.0, 2.0]) - gain, "it is small"
    )
    law = {"rule": "rsd", "sampler": "without_replacement", "k": 2, "places": 3}
    law |= {"accepted": 0.5, "error": 0.01, "optimal": 0.6}
    return {"claims": [row], "laws": [law], "versions": {"torch": "2"}}


def test_the_page_says_how_it_was_made():
    text = page("", {"drafting": section("drafting", table(-1.0))})
    assert "workbench bench claims --write" in text
    assert "does not hold here, likely because it is small" in text
    assert "0.500 ± 0.010 | 0.600" in text
    assert "likely because" not in page("", {"drafting": section("drafting", table(1.0))})


def test_measuring_one_part_again_leaves_the_others_alone():
    first = page("", {name: section(name, table(1.0)) for name in reversed(PARTS)})
    assert list(sections(first)) == list(PARTS)
    second = page(first, {"pruning": section("pruning", table(-1.0))})
    for name in PARTS:
        assert (sections(first)[name] == sections(second)[name]) == (name != "pruning")
    assert page(second, {}) == second


def test_the_committed_page_is_what_the_command_would_write():
    text = REPORT.read_text(encoding="utf-8")
    assert page(text, {}) == text and set(sections(text)) <= set(PARTS)
