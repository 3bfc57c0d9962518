"""Masks and patterns by hand, on files, and against bad input."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput, BadKnob, Mismatch
from workbench.core.masks import MaskSet, Pattern, keep_mask, keep_masks, opened, removed_count
from workbench.core.pruning import Plan, shares


def test_ties_go_by_index_and_never_all_at_once():
    assert keep_mask(torch.ones(2, 4), Pattern("layer"), 0.5).tolist() == [[False] * 4, [True] * 4]
    assert (
        keep_mask(torch.ones(2, 4), Pattern("row"), 0.5).tolist() == [[False] * 2 + [True] * 2] * 2
    )


@pytest.mark.parametrize("ratio, gone", [(0.29, 29), (0.7, 70), (0.1 + 0.2, 30), (0.999, 99)])
def test_the_count_is_the_floor_of_what_was_meant(ratio, gone):
    assert removed_count(100, ratio) == gone
    assert int((~keep_mask(torch.rand(10, 10), Pattern("layer"), ratio)).sum()) == gone


def test_groups_lie_along_the_inputs_and_a_cut_one_stays():
    scores = torch.tensor([[4.0, 3, 2, 1, 1, 2, 3, 4, 0, 0]])
    kept = keep_mask(scores, Pattern.parse("2:4"), 0.5)[0].tolist()
    assert kept == [True, True, False, False, False, False, True, True, True, True]
    one_of_four = keep_mask(scores, Pattern.parse("1:4"), 0.5)[0].tolist()
    assert one_of_four == [True] + [False] * 6 + [True] * 3


def test_a_global_pattern_compares_matrices_of_one_ratio():
    scores = {"a": torch.tensor([[1.0, 2]]), "b": torch.tensor([[3.0, 4]]), "c": torch.zeros(1, 2)}
    made = keep_masks(scores, Pattern("global"), {"a": 0.5, "b": 0.5, "c": 0.0})
    assert [made[name].tolist() for name in "abc"] == [[[False] * 2], [[True] * 2], [[True] * 2]]


def test_bad_ratios_patterns_and_scores_are_refused():
    for ratio in (1.0, 1.5, -0.1, float("nan"), "half", True):
        with pytest.raises(BadInput, match="ratio"):
            Plan(ratio=ratio)
    with pytest.raises(BadInput, match="removes everything"):
        keep_mask(torch.ones(2, 2), Pattern("layer"), 1.0)
    with pytest.raises(BadInput, match="layer 3"):
        Plan(layers={3: 1.0})
    for text in ("4:4", "0:4", "column"):
        with pytest.raises(BadKnob):
            Pattern.parse(text)
    with pytest.raises(BadInput, match="NaN"):
        keep_mask(torch.tensor([[float("nan"), 1.0]]), Pattern("layer"), 0.5)


def test_shares_add_up_and_nobody_gets_more_than_there_is():
    assert shares([1.0, 1, 1], 10, 24) == [4, 3, 3]
    assert shares([100.0, 1, 1], 24, 10) == [10, 7, 7]
    assert shares([1.0, 0, 0], 5, 10) == [3, 1, 1]
    for total in range(3, 30):
        assert sum(shares([0.3, 0.5, 0.2], total, 10)) == total


def some_masks() -> MaskSet:
    generator = torch.Generator().manual_seed(1)
    weights = {"a.q": torch.rand(5, 7, generator=generator) > 0.5}
    return MaskSet(weights, {"neurons.0": torch.rand(9, generator=generator) > 0.5}, "f00d", "made")


def test_a_file_holds_the_mask_to_the_last_bit():
    masks = some_masks()
    data = masks.to_bytes()
    again = MaskSet.from_bytes(data)
    assert again == masks and again.fingerprint == "f00d" and again.note == "made"
    assert again.density == pytest.approx(masks.weights["a.q"].double().mean().item())
    flipped = masks.painted("a.q", (5, 7), [(0, 0)], not bool(masks.weights["a.q"][0, 0]))
    assert flipped != masks


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 64, some_masks().to_bytes()[:-3]])
def test_damaged_files_say_so(data):
    with pytest.raises(BadInput, match="is no saved mask"):
        MaskSet.from_bytes(data, "mine.safetensors")


def test_changed_weights_are_in_the_file_and_never_lost_silently():
    masks, generator = some_masks(), torch.Generator().manual_seed(2)
    matrix = torch.randn(5, 7, generator=generator) * masks.weights["a.q"]
    changed = {"a.q": matrix, "norm.weight": torch.randn(7, generator=generator)}
    data = masks.to_bytes(changed)
    again, found = opened(data)
    assert again == masks and again.note == "made" and found.keys() == changed.keys()
    assert all(torch.equal(found[name], changed[name]) for name in changed)
    with pytest.raises(BadInput, match="2 corrected weights"):
        MaskSet.from_bytes(data)
    assert opened(masks.to_bytes()) == (masks, {})
    bad = {"norm.weight": torch.full((7,), torch.nan)}
    for wrong in (data[:-3], masks.to_bytes(bad)):
        with pytest.raises(BadInput, match="is no saved mask"):
            opened(wrong)


def test_a_mask_of_another_network_is_refused():
    masks = some_masks()
    shapes = {"a.q": (5, 7), "neurons.0": (9,)}
    assert masks.check(shapes, "f00d") is masks
    with pytest.raises(BadInput, match="5x7, but the network's is 5x8"):
        masks.check({**shapes, "a.q": (5, 8)})
    with pytest.raises(BadInput, match="Did you mean 'a.qq'"):
        masks.check({"a.qq": (5, 7), "neurons.0": (9,)})
    with pytest.raises(Mismatch, match="fingerprint"):
        masks.check(shapes, "beef")


def test_painting_and_combining():
    empty = MaskSet()
    one = empty.painted("a", (2, 3), [(0, 1), (1, 2)], False)
    assert one.weights["a"].tolist() == [[True, False, True], [True, True, False]]
    assert one.painted("a", (2, 3), [(0, 1)], True).weights["a"].tolist()[0] == [True] * 3
    other = empty.painted("a", (2, 3), [(0, 0)], False).painted("layers", (4,), [(2,)], False)
    both = one.combined(other)
    assert both.weights["a"].tolist() == [[False, False, True], [True, True, False]]
    assert both.parts["layers"].tolist() == [True, True, False, True]
    with pytest.raises(BadInput, match="outside a"):
        empty.painted("a", (2, 3), [(2, 0)], False)
