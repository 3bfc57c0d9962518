"""peft's merging: every way, whose sums are exact, and what it may not be given."""

from __future__ import annotations

import pytest
import torch
from adapters.conftest import attach, logits

from workbench.adapters.operations.merge import WAYS
from workbench.core.errors import BadKnob, Mismatch
from workbench.core.method import make_method
from workbench.models.updates import deltas, from_deltas


@pytest.fixture
def two(adapters):
    """Two LoRAs, and a way to merge them that returns the facts and takes the result off again."""
    attach(adapters, "a", r=3)
    attach(adapters, "b", r=3, seed=1)

    def merged(way: str, **knobs):
        made = make_method("operation", "merge", way=way, **{"weights": "0.5,0.7", **knobs})
        facts = made.combine(adapters, ["a", "b"], "ab")
        changes = deltas(adapters, "ab")
        adapters.detach("ab")
        return facts, changes

    return merged


def test_every_way_and_how_far_it_is_from_the_sum(two):
    """Exact by name; on the whole update nearer than on the thin matrices apart."""
    far = {way: two(way)[0]["error"] for way in WAYS}
    assert far["cat"] < 1e-6 and far["svd"] < 1e-5
    assert two("svd", svd_rank=3)[0]["error"] > 0.1
    for way in ("ties", "magnitude_prune", "dare_linear"):
        assert 0.02 < far[f"{way}_svd"] < far[way]
    assert min(far[way] for way in WAYS if way != "cat" and "svd" not in way) > 0.3
    with pytest.warns(UserWarning, match="no pruning"):
        assert two("magnitude_prune_svd", density=1.0)[0]["error"] < 1e-5
    assert two("magnitude_prune_svd", density=0.2)[0]["error"] > far["magnitude_prune_svd"]


def test_the_sum_is_that_of_the_weights_and_by_default_the_mean(adapters, two):
    a, b = deltas(adapters, "a"), deltas(adapters, "b")
    for weights, first, second in (("0.5,0.7", 0.5, 0.7), ("", 0.5, 0.5), ("1,-1", 1.0, -1.0)):
        facts, changes = two("cat", weights=weights)
        assert facts["rank"] == 6
        for path, change in changes.items():
            assert torch.allclose(change, first * a[path] + second * b[path], atol=1e-9)


def test_what_dare_drops_hangs_on_the_seed_alone(two):
    once, again, other = (two("dare_linear_svd", seed=seed)[1] for seed in (3, 3, 4))
    assert all(torch.equal(again[path], change) for path, change in once.items())
    assert not all(torch.allclose(other[path], change) for path, change in once.items())


@pytest.mark.parametrize("way", ["cat", "svd"])
def test_rank_stabilised_loras_and_single_ranks_add_up_too(adapters, way):
    """peft keeps the first adapter's sqrt(r) for the result; a LoRA may have a rank a matrix."""
    attach(adapters, "a", r=2, rslora=True)
    update = {path: change for path, change in deltas(adapters, "a").items() if "v_proj" in path}
    wide = {path.replace("v_proj", "k_proj"): change for path, change in update.items()}
    attach(adapters, "b", r=3, seed=1)
    both = {**{path: 0.1 * change for path, change in deltas(adapters, "b").items()}, **wide}
    from_deltas(adapters, both, 4, "c")
    adapters.detach("b")
    made = make_method("operation", "merge", way=way, weights="1,1")
    assert made.combine(adapters, ["a", "c"], "ac")["error"] < 1e-5
    adapters.set_active(["a", "c"])
    wanted = logits(adapters)
    adapters.set_active(["ac"])
    assert torch.allclose(logits(adapters), wanted, atol=1e-5)


def test_a_dora_is_no_sum_and_weights_are_numbers(adapters):
    attach(adapters, "a", r=2)
    attach(adapters, "d", r=2, dora=True, seed=1)
    with pytest.raises(Mismatch, match="'d' is no LoRA but a DoRA"):
        make_method("operation", "merge").combine(adapters, ["a", "d"], "x")
    with pytest.raises(BadKnob, match="write numbers"):
        make_method("operation", "merge", weights="1,x").combine(adapters, ["a", "a"], "x")
    assert adapters.names == ("a", "d")


def test_ranks_that_add_up_to_more_than_a_matrix_has(adapters):
    """As two results of operations do, which are stored in full rank."""
    most = min(min(change.shape) for change in _whole(adapters).values())
    with pytest.raises(Mismatch, match=rf"add up to {2 * most}, more than the {most} .* way='svd'"):
        make_method("operation", "merge", way="cat").combine(adapters, ["a", "b"], "ab")
    facts = make_method("operation", "merge", way="svd").combine(adapters, ["a", "b"], "ab")
    changes = {name: deltas(adapters, name) for name in ("a", "b", "ab")}
    for path, made in changes["ab"].items():  # the nearest of that rank
        wanted = (changes["a"][path] + changes["b"][path]) / 2
        lost = torch.linalg.svdvals(wanted)[most:].square().sum().sqrt()
        assert torch.allclose((made - wanted).norm(), lost, atol=1e-5)
    assert facts["rank"] == most and facts["error"] > 0.01


def _whole(adapters) -> dict[str, torch.Tensor]:
    """Two LoRAs of the smallest matrix's whole rank are attached; the change of the first."""
    attach(adapters, "thin", r=1)
    side = min(min(change.shape) for change in deltas(adapters, "thin").values())
    adapters.detach("thin")
    attach(adapters, "a", r=side)
    attach(adapters, "b", r=side, seed=1)
    return deltas(adapters, "a")


def test_nothing_is_drawn_from_the_generator_of_everybody(adapters):
    attach(adapters, "a", r=2)
    attach(adapters, "b", r=2, seed=1)
    before = torch.random.get_rng_state()
    make_method("operation", "merge").combine(adapters, ["a", "b"], "ab")
    adapters.detach("a")
    adapters.put(adapters.config("b"), adapters.state("b"), "c")
    assert torch.equal(torch.random.get_rng_state(), before)
