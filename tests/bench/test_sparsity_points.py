"""What pruning costs, as it is counted: sparsity, harm of layers, expected and measured speed."""

from __future__ import annotations

import pytest
import torch

from workbench.bench import sparsity
from workbench.bench.sparsity import MOST_DRAFTED, curve, expected_speed, layer_harm, point
from workbench.core.masks import MaskSet, Pattern
from workbench.core.method import make_method
from workbench.models.masking import apply_masks
from workbench.models.prune import Pruned
from workbench.models.units import matrices
from workbench.testing.tiny_network import tiny_network

ROWS = torch.randint(0, 13, (3, 20), generator=torch.Generator().manual_seed(1))


def loss_of(model) -> float:
    p = torch.stack([model.laws_along(row.tolist()) for row in ROWS])[:, :-1].log_softmax(-1)
    return -float(p.gather(-1, ROWS[:, 1:, None]).mean())


def test_sparsity_is_counted_over_all_matrices_of_the_blocks_and_nothing_else():
    model = tiny_network(13, layers=3)
    dense = model.clone()
    name, one = next(iter(matrices(model).items()))
    blocks = sum(p.numel() for p in model.network.model.layers.parameters() if p.dim() > 1)
    whole = point(model, dense, ROWS, Pruned(MaskSet()))
    assert whole.sparsity == 0 and whole.acceptance == pytest.approx(1, abs=1e-6)
    assert whole.loss_nats == pytest.approx(loss_of(dense), rel=1e-5)
    gone = Pruned(MaskSet({name: torch.zeros(one.weight.shape, dtype=torch.bool)}))
    found = point(model, dense, ROWS, gone, 0.7)
    assert found.ratio == 0.7 and found.sparsity == one.weight.numel() / blocks
    assert found.acceptance < 0.99 and loss_of(model) == loss_of(dense)


def test_the_harm_of_a_layer_is_that_of_the_network_without_it():
    model = tiny_network(13, layers=3)
    dense, found = model.clone(), layer_harm(model, model.clone(), ROWS)
    assert [one.ratio for one in found] == [0, 1, 2]
    assert [one.sparsity for one in found] == pytest.approx([1 / 3] * 3)
    for index, one in enumerate(found):
        other = dense.clone()
        kept = torch.arange(3) != index
        apply_masks(other, MaskSet(parts={"layers": kept}))
        assert one.loss_nats == pytest.approx(loss_of(other), rel=1e-5)
    assert len({one.loss_nats for one in found}) == 3


def test_a_curve_of_groups_has_two_points_and_a_pruner_its_own_pattern():
    model = tiny_network(13, layers=2)
    magnitude, cfsp = (make_method("pruner", name) for name in ("magnitude", "cfsp"))
    found = list(curve(model, model.clone(), ROWS, magnitude, Pattern.parse("1:4"), ROWS))
    assert [one.ratio for one in found] == [0.0, 0.5] and found[1].sparsity == 0.75
    shares = list(curve(model, model.clone(), ROWS, cfsp, Pattern("row"), ROWS, (0.0, 0.5)))
    mlp = 3 * 16 * 24 / (3 * 16 * 24 + 2 * 16 * 16 + 2 * 16 * 8)
    assert [one.sparsity for one in shares] == pytest.approx([0, mlp / 2])


def test_the_expected_speed_is_the_best_draft_lengths():
    """(1 + a + ... + a^g) / (1 + g c): figures of the method card and its limits."""
    for cost in (0.1, 0.5, 0.9):
        ratio, drafted = expected_speed(1.0, cost)
        assert (ratio, drafted) == (pytest.approx(9 / (1 + 8 * cost)), MOST_DRAFTED)
    for accepted, cost, wanted, length in (
        (0.912, 0.80, 1.06, 1),  # 30 % of the neurons cut out
        (0.837, 0.67, 1.10, 1),  # 50 %
        (0.918, 0.60, 1.26, 3),  # 2:4 by SparseGPT, on hardware that has it
    ):
        ratio, drafted = expected_speed(accepted, cost)
        assert (round(ratio, 2), drafted) == (wanted, length)
        wins = [
            (1 - accepted ** (g + 1)) / (1 - accepted) / (1 + g * cost)
            for g in range(1, MOST_DRAFTED + 1)
        ]
        assert ratio == pytest.approx(max(wins))
    for cost in (0.3, 0.6, 0.95):  # one token breaks even at a = c
        assert expected_speed(cost + 0.01, cost)[0] > 1 > expected_speed(cost - 0.01, cost)[0]
    assert max(expected_speed(a / 100, 1.0)[0] for a in range(100)) < 1


def test_a_pass_is_timed_in_turn_and_the_first_pair_does_not_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(sparsity.time, "perf_counter", lambda: clock[0])
    order: list[str] = []

    def model(name: str, durations: list[float]):
        def network(**given):
            order.append(name)
            clock[0] += durations.pop(0)

        made = tiny_network(3, layers=1)
        assert made.torch_device.type == "cpu"  # asked for once, of the real network
        made.network = network
        return made

    small, whole = model("small", [0.125, 2, 4, 5]), model("whole", [1, 8, 8, 8])
    assert sparsity.pass_ratio(small, whole, ROWS, repeats=3) == 0.5
    assert order == ["small", "whole"] * 4
