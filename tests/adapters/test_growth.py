"""IncreLoRA's allocator and layer by hand: averages, warm-up, budget, room, reserve, scale."""

from __future__ import annotations

import pytest
import torch
from adapters.conftest import IDS, logits, put_growing
from torch import nn

from workbench.core.method import make_method
from workbench.models.adapter_forms import peft_config
from workbench.models.tuners.growing import RESERVE_GAIN, GrowingLayer
from workbench.models.updates import deltas


@torch.no_grad()
def set_gains(allocator, value: float = 3.0) -> None:
    for layer in allocator.layers:
        layer.growing_E["g"][: layer.live["g"]] = value


def score(allocator, *scores: float) -> None:
    allocator.mean, allocator.wavering = list(scores), [1.0] * len(scores)


def test_both_averages_and_their_product_by_hand(adapters):
    _, allocator = put_growing(adapters, beta1=0.6, beta2=0.9, advance=False)
    set_gains(allocator)
    change = allocator.layers[1].get_delta_weight("g").detach()
    generator, mean, wavering = torch.Generator().manual_seed(4), 0.0, 0.0
    for step in (1, 2, 3):
        gradient = torch.randn(change.shape, generator=generator, dtype=change.dtype)
        allocator._gradient = {1: gradient}
        allocator.after_backward(step)
        now = float((change * gradient).abs().sum()) / change.numel() ** 0.5
        mean = 0.6 * mean + 0.4 * now
        wavering = 0.9 * wavering + 0.1 * abs(now - mean)
    assert allocator.mean[1] == pytest.approx(mean)
    assert allocator.wavering[1] == pytest.approx(wavering)
    assert allocator.scores == pytest.approx([0, mean * wavering, 0, 0, 0, 0])


def test_growth_waits_for_the_end_of_the_warm_up_and_for_an_interval(adapters):
    _, allocator = put_growing(adapters, target_rank=3.0, top=1, warmup=4, interval=2)
    score(allocator, 1, 2, 3, 4, 5, 6)
    for step in range(1, 10):
        allocator.after_step(step)
    assert [step for step, _ in allocator.log] == [0, 6, 8]


def test_what_is_left_of_the_budget_limits_how_many_grow(adapters):
    _, allocator = put_growing(adapters, target_rank=1.5, top=2, warmup=0, interval=1)
    score(allocator, 1, 2, 3, 4, 5, 6)
    for step in (1, 2, 3):
        allocator.after_step(step)
    assert allocator.log == [(0, [1] * 6), (1, [1, 1, 1, 1, 2, 2]), (2, [1, 1, 1, 1, 2, 3])]


def test_an_overspent_budget_ends_growth_and_the_reserve(adapters):
    _, allocator = put_growing(adapters, target_rank=2.0, top=4, add=2, warmup=0, interval=1)
    assert [layer.reserve["g"] for layer in allocator.layers] == [2] * 6
    score(allocator, 1, 2, 3, 4, 5, 6)
    for step in (1, 2):
        allocator.after_step(step)
    assert allocator.ranks == [1, 1, 3, 3, 3, 3], "14 ranks where 12 were wanted"
    assert not any(layer.reserve["g"] for layer in allocator.layers)


def test_a_budget_that_is_spent_at_the_start_trains_nothing_ahead(adapters):
    _, allocator = put_growing(adapters, start=2, target_rank=2.0)
    assert not any(layer.reserve["g"] for layer in allocator.layers)


def test_a_full_matrix_lets_others_grow(adapters):
    _, allocator = put_growing(adapters, target_rank=2.0, top=1, warmup=0, interval=1, most=2)
    score(allocator, 1, 2, 3, 4, 5, 6)
    for step in range(1, 8):
        allocator.after_step(step)
    assert allocator.ranks == [2] * 6
    assert allocator.log[1][1] == [1, 1, 1, 1, 1, 2] and allocator.log[2][1] == [1, 1, 1, 1, 2, 2]


def test_all_that_grow_at_once_are_a_uniform_rank(adapters):
    knobs = {"target_rank": 3.0, "top": 6, "add": 2, "warmup": 0, "interval": 1, "rescale": True}
    _, allocator = put_growing(adapters, **knobs)
    allocator.after_step(1)
    assert allocator.ranks == [3] * 6
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for layer in allocator.layers:
            layer.growing_E["g"].copy_(torch.randn(6, generator=generator))
    allocator.finish(adapters.config("g"))
    grown, tensors = logits(adapters), adapters.state("g")
    adapters.detach()
    flat = make_method("adapter", "increlora", start=3, target_rank=3.0, most=3)
    adapters.attach(flat.config(adapters.shapes), "flat")
    adapters.fill("flat", tensors)
    assert torch.allclose(logits(adapters), grown, atol=1e-12)


def test_orthogonality_is_that_of_whole_matrices_alive_or_in_reserve(adapters):
    """A = three rows, two of them alike; B = 0: || A A^T - I || = sqrt(2), || - I || = sqrt(3)."""
    _, allocator = put_growing(adapters, orth=0.3, add=2, target_rank=2.0)
    with torch.no_grad():
        for layer in allocator.layers:
            layer.growing_A["g"].fill_(7.0)  # what sleeps does not count
            layer.growing_A["g"][:3] = torch.eye(16)[[0, 0, 1]]
            layer.growing_B["g"].fill_(7.0)
            layer.growing_B["g"][:, :3] = 0.0
    assert float(allocator.extra_loss()) == pytest.approx(0.3 * (2**0.5 + 3**0.5) / 2)
    adapters.detach()
    _, silent = put_growing(adapters, orth=0.0)
    assert silent.extra_loss() is None


def test_first_values():
    layer = GrowingLayer(nn.Linear(256, 128))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = peft_config("GROWING", r=1, most=16)
        layer.update_layer("g", config, "layers.0.q_proj")
    for start in (layer.growing_A["g"], layer.growing_B["g"]):
        assert float(start.std()) == pytest.approx(0.02, rel=0.06)
        assert abs(float(start.mean())) < 0.002
    assert not layer.growing_E["g"].any()


def test_the_reserve_is_trained_ahead_and_acts_in_training_only(adapters):
    _, allocator = put_growing(adapters, add=2, target_rank=2.0)
    layer, network = allocator.layers[2], adapters.model.network
    with adapters.train("g"):
        network.train()
        assert layer.get_delta_weight("g").abs().max() > 0
        assert layer.gain("g").tolist() == [0, RESERVE_GAIN, RESERVE_GAIN, 0, 0, 0]
        network(input_ids=IDS, use_cache=False).logits.square().mean().backward()
        reached = layer.growing_A["g"].grad.abs().amax(1) > 0
        assert reached.tolist() == [False, True, True, False, False, False], "E is 0 in the first"
        gains = layer.growing_E["g"].grad
        assert gains[0] != 0 and not gains[1:].any(), "the reserve's gain is frozen"
        network.eval()
    assert not layer.get_delta_weight("g").any()
    layer.grow("g", 2)
    assert layer.gain("g").tolist() == [0, RESERVE_GAIN, RESERVE_GAIN, 0, 0, 0]
    layer.reserve["g"] = 0
    layer.grow("g", 1)
    assert layer.growing_E["g"].tolist() == [0, RESERVE_GAIN, RESERVE_GAIN, 0, 0, 0]


def test_the_published_scale_stays_under_the_strength_slider(adapters):
    """alpha / live rank, not alpha / rank of the start, is what a strength multiplies."""
    _, allocator = put_growing(adapters, rescale=True, alpha=6.0)
    for layer in allocator.layers:
        layer.grow("g", 2)
    set_gains(allocator)
    whole = deltas(adapters, "g")
    layer = allocator.layers[0]
    plain = 3.0 * layer.growing_B["g"][:, :3] @ layer.growing_A["g"][:3]
    assert torch.allclose(next(iter(whole.values())), 6.0 / 3 * plain)
    adapters.set_strength("g", 0.5)
    assert all(torch.allclose(v, whole[k] / 2) for k, v in deltas(adapters, "g").items())
    adapters.set_strength("g", 1.0)
    assert all(torch.allclose(v, whole[k]) for k, v in deltas(adapters, "g").items())


def test_a_grown_adapter_outlives_its_neighbour(adapters, tmp_path):
    """Taking another off builds everything anew from configurations and tensors."""
    _, allocator = put_growing(adapters, rescale=True, target_rank=2.0, warmup=0, interval=1, top=2)
    score(allocator, 3, 1, 2, 1, 5, 1)
    for step in range(1, 6):
        allocator.after_step(step)
    set_gains(allocator)
    allocator.finish(adapters.config("g"))
    wanted = logits(adapters)
    other = make_method("adapter", "ia3")
    adapters.attach(other.config(adapters.shapes), "i")
    adapters.detach("i")
    assert torch.equal(logits(adapters), wanted)
    session = adapters.model.session()
    assert torch.allclose(session.forward(IDS[0].tolist()).logits, wanted[0], atol=1e-9)
