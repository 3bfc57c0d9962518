"""IncreLoRA: what growing changes, how far it goes, and where the ranks end up."""

from __future__ import annotations

import pytest
import torch
from adapters.conftest import IDS, logits, put_growing

from workbench.core.errors import BadKnob
from workbench.core.method import make_method
from workbench.models.tuners.growing import growing_layers
from workbench.models.updates import deltas


def test_growth_is_smooth_with_the_scale_held_and_exact_without_a_reserve(adapters):
    for advance, most in ((True, 1e-3), (False, 0.0)):
        put_growing(adapters, advance=advance)
        with torch.no_grad():
            for layer in growing_layers(adapters.model.network, "g"):
                layer.growing_E["g"][0] = 3.0
        before = logits(adapters)
        for layer in growing_layers(adapters.model.network, "g"):
            assert layer.grow("g", 1) == 1
        assert (logits(adapters) - before).abs().max() <= most
        adapters.detach()


def test_the_published_scale_halves_the_update_when_rank_doubles(adapters):
    put_growing(adapters, rescale=True, advance=False)
    with torch.no_grad():
        for layer in growing_layers(adapters.model.network, "g"):
            layer.growing_E["g"][0] = 3.0
    before = deltas(adapters, "g")
    for layer in growing_layers(adapters.model.network, "g"):
        layer.grow("g", 1)
    after = deltas(adapters, "g")
    assert all(torch.allclose(after[path], delta / 2) for path, delta in before.items())


def test_equal_scores_grow_evenly_and_the_budget_holds(adapters):
    _, allocator = put_growing(adapters, target_rank=3.0, top=4, warmup=0, interval=1)
    allocator.mean = allocator.wavering = [1.0] * len(allocator.layers)
    allocator.after_step(1)
    assert allocator.ranks == [2] * 6, "ties grow together"
    for step in range(2, 12):
        allocator.after_step(step)
    assert sum(allocator.ranks) <= 18 + 4 and allocator.ranks == [3] * 6
    assert not any(layer.reserve["g"] for layer in allocator.layers)


def test_the_highest_score_grows(adapters):
    _, allocator = put_growing(adapters, target_rank=3.0, top=1, warmup=0, interval=2)
    allocator.mean, allocator.wavering = [1.0, 1, 1, 5, 1, 1], [1.0] * 6
    allocator.after_step(1)
    assert allocator.ranks == [1] * 6, "not at an interval"
    for step in (2, 4, 6):
        allocator.after_step(step)
    assert allocator.ranks == [1, 1, 1, 4, 1, 1]
    assert [step for step, _ in allocator.report()["ranks"]] == [0, 2, 4, 6]


def test_scores_are_the_products_of_update_and_gradient(adapters):
    """dL/d(dW) from the hooks equals the gradient of the plain weight."""
    _, allocator = put_growing(adapters, beta1=0.0, advance=False)
    with torch.no_grad():
        for layer in allocator.layers:
            layer.growing_E["g"][0] = 2.0
    layer = allocator.layers[2]
    weight = layer.get_base_layer().weight.requires_grad_(True)
    with adapters.train("g"):
        weight.requires_grad_(True)
        adapters.model.network(input_ids=IDS, use_cache=False).logits.square().mean().backward()
        allocator.after_backward(1)
        delta = layer.get_delta_weight("g").detach()
        wanted = float((delta * weight.grad).abs().sum()) / delta.numel() ** 0.5
    assert allocator.mean[2] == pytest.approx(wanted, rel=1e-6)


def test_ranks_go_where_the_loss_is(adapters):
    """Only the last layer's value matrix can move the loss: it takes most of what is handed out."""
    _, allocator = put_growing(adapters, target_rank=2.0, top=1, warmup=2, interval=3, most=8)
    with torch.no_grad():
        for layer in allocator.layers[:5]:
            layer.scaling["g"] = 0.0  # what it adds reaches nothing
    with adapters.train("g"):
        weights = [p for p in adapters.model.network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=2e-2, weight_decay=0.0)
        network = adapters.model.network.train()
        for step in range(1, 40):
            output = network(input_ids=IDS, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), IDS.flatten())
            optimiser.zero_grad()
            (loss + allocator.extra_loss()).backward()
            allocator.after_backward(step)
            optimiser.step()
            allocator.after_step(step)
        network.eval()
    gained = [rank - 1 for rank in allocator.ranks]
    assert gained[5] >= 0.6 * sum(gained) > 0, gained


def test_finishing_cuts_and_keeps_the_function(adapters, tmp_path):
    _, allocator = put_growing(adapters, target_rank=2.0, warmup=0, interval=1, top=2)
    allocator.mean, allocator.wavering = [3.0, 1, 2, 1, 5, 1], [1.0] * 6
    for step in range(1, 6):
        allocator.after_step(step)
    with torch.no_grad():
        for layer in allocator.layers:
            layer.growing_E["g"].add_(1.0)
    wanted = logits(adapters)
    allocator.finish(adapters.config("g"))
    ranks = adapters.config("g").rank_pattern
    assert sum(ranks.values()) == sum(allocator.ranks)
    assert torch.equal(logits(adapters), wanted)
    sizes = {s.name: s.d_in + s.d_out + 1 for s in adapters.shapes}
    assert adapters.parameter_count("g") == sum(r * sizes[path] for path, r in ranks.items())
    folder = adapters.save("g", tmp_path / "g")
    adapters.detach()
    adapters.load(folder)
    assert torch.equal(logits(adapters), wanted)


def test_budgets_that_cannot_be():
    with pytest.raises(BadKnob, match="target_rank"):
        make_method("adapter", "increlora", target_rank=2.0, start=4)
    with pytest.raises(BadKnob, match="target_rank"):
        make_method("adapter", "increlora", target_rank=32.0, most=8)
