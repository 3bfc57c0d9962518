"""Other hardware: parts add up, links cost, faster memory helps, and no draft is a choice."""

from __future__ import annotations

import dataclasses

import pytest

from workbench.bench.elsewhere import Place, predict, trees
from workbench.bench.roofline import KNOWN, Hardware, Size
from workbench.core.best_tree import best_for_cost
from workbench.core.errors import BadInput

ACCEPTANCE = (0.6, 0.15, 0.05)
GPU, DESKTOP = KNOWN[1], KNOWN[-1]
PLACE = Place(Size("target", 7e9), Size("draft", 2e8, layers=6), GPU)


def test_the_parts_of_a_round_add_up():
    found = predict(ACCEPTANCE, dataclasses.replace(PLACE, draft_hardware=KNOWN[0]))
    parts = found.verify_ms + found.draft_ms + found.link_ms
    assert parts == pytest.approx(found.best.round_ms) and found.link_ms > 0
    gain = found.best.emitted * found.plain_ms / parts
    assert found.speedup == pytest.approx(gain)
    assert dict(found.by_nodes)[len(found.best.parent)] == pytest.approx(found.speedup)


def test_it_agrees_with_the_search_over_sizes_and_depths():
    from workbench.bench.cost_curve import RoundCost
    from workbench.bench.cost_model import DEPTHS, SIZES

    found = predict(ACCEPTANCE, PLACE)
    cost = RoundCost(found.verify, found.draft)
    same = best_for_cost(ACCEPTANCE, cost.round_ms, SIZES, DEPTHS)
    assert same.parent == found.best.parent and same.round_ms == found.best.round_ms


def test_a_slow_link_or_a_slow_draft_device_is_charged():
    near = predict(ACCEPTANCE, PLACE)
    slow = dataclasses.replace(GPU, link_gb_s=0.01)
    apart = dataclasses.replace(PLACE, hardware=slow, draft_hardware=GPU)
    far = predict(ACCEPTANCE, apart)
    assert far.speedup < near.speedup
    desktop = predict(ACCEPTANCE, dataclasses.replace(PLACE, draft_hardware=DESKTOP))
    assert desktop.best.parent == () and desktop.speedup == 1.0 and desktop.link_ms == 0.0


def test_a_draft_without_a_model_costs_what_was_measured_only():
    found = predict(ACCEPTANCE, PLACE, draft_ms=0.25, draft_model=False)
    assert found.draft is None and found.draft_ms == pytest.approx(0.25)


def test_acceptance_zero_predicts_plain_decoding():
    assert predict((0.0,), PLACE).speedup == 1.0
    assert trees((0.0,))[0].parent == ()


@pytest.mark.parametrize("change", [{"vocabulary": 1}, {"context": 0},
                                    {"target": Size("target", 0.0)}])  # fmt: skip
def test_nonsense_is_named(change):
    with pytest.raises(BadInput, match="above 0|or more"):
        dataclasses.replace(PLACE, **change)
    with pytest.raises(BadInput, match="bandwidth_gb_s"):
        Hardware("none", 0.0, 1.0)
