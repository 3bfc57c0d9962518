"""What the criteria are, by algebra, and what they hear."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput, Mismatch, ModelError
from workbench.core.masks import Pattern, keep_mask, removed_count
from workbench.core.method import make_method
from workbench.core.pruning import Plan, Stats, Unit
from workbench.models.anatomy import anatomy_of
from workbench.models.calibrate import Walk, calibration_rows, hear
from workbench.models.model import Model
from workbench.models.prune import prune
from workbench.models.units import matrices, units_of
from workbench.testing import checkpoints
from workbench.testing.tiny_network import tiny_network

ROW, LAYER = Pattern("row"), Pattern("layer")


def unit_of(weight: torch.Tensor) -> Unit:
    return Unit("w", "weights", 0, {"weight": weight}, tuple(weight.shape))


def stats_of(x: torch.Tensor) -> Stats:
    return Stats(len(x), x.double().square().sum(0), x.T @ x)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_wanda_with_equal_inputs_is_magnitude_by_row():
    unit, wanda, magnitude = unit_of(noise(8, 12)), make_method("pruner", "wanda"), "magnitude"
    equal = Stats(10, torch.full((12,), 4.0, dtype=torch.double))
    wanted = keep_mask(make_method("pruner", magnitude).score(unit, None), ROW, 0.5)
    assert torch.equal(keep_mask(wanda.score(unit, equal), ROW, 0.5), wanted)
    loud = Stats(10, torch.tensor([1e6] + [1.0] * 11, dtype=torch.double))
    assert bool(keep_mask(wanda.score(unit, loud), ROW, 0.9)[:, 0].all())


def test_wanda_follows_its_inputs_around():
    weight, x = noise(8, 12), noise(40, 12, seed=1) * torch.arange(1, 13)
    order, wanda = torch.randperm(12, generator=torch.Generator().manual_seed(2)), "wanda"
    pruner = make_method("pruner", wanda)
    mask = keep_mask(pruner.score(unit_of(weight), stats_of(x)), ROW, 0.5)
    moved = keep_mask(pruner.score(unit_of(weight[:, order]), stats_of(x[:, order])), ROW, 0.5)
    assert torch.equal(moved, mask[:, order])


def test_ria_by_hand_and_its_limits():
    weight = torch.tensor([[1.0, -3.0], [0.0, 1.0]])
    heard = Stats(10, torch.tensor([16.0, 81.0], dtype=torch.double))  # norms 4 and 9
    found = make_method("pruner", "ria").score(unit_of(weight), heard)
    wanted = [[(1 / 1 + 1 / 4) * 2, (3 / 4 + 3 / 4) * 3], [0.0, (1 / 4 + 1 / 1) * 3]]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.double))
    alone = make_method("pruner", "ria", power=0.0).score(unit_of(weight), heard)
    assert torch.allclose(alone, found / torch.tensor([2.0, 3.0], dtype=torch.double))
    # a row or a column of small weights keeps its share: magnitude would empty both
    weight = noise(12, 16)
    weight[3], weight[:, 5] = weight[3] * 1e-3, weight[:, 5] * 1e-3
    equal = Stats(10, torch.ones(16, dtype=torch.double))
    kept = keep_mask(make_method("pruner", "ria").score(unit_of(weight), equal), LAYER, 0.5)
    plain = keep_mask(make_method("pruner", "magnitude").score(unit_of(weight), None), LAYER, 0.5)
    assert kept[3].any() and kept[:, 5].any() and not plain[3].any() and not plain[:, 5].any()
    assert bool(make_method("pruner", "ria").score(unit_of(weight * 0), equal).isfinite().all())


def test_sparsegpt_changes_nothing_else_where_inputs_are_independent():
    weight, x = noise(6, 16), torch.eye(16)
    for pattern in (ROW, Pattern("layer"), Pattern.parse("2:4")):
        mask, new = make_method("pruner", "sparsegpt").prune(
            unit_of(weight), stats_of(x), pattern, 0.5
        )
        assert torch.allclose(new[mask], weight[mask], atol=1e-6)
        assert torch.equal(mask, keep_mask(weight.abs(), pattern, 0.5))


@pytest.mark.parametrize("columns", [8, 24, 128])
@pytest.mark.parametrize("pattern", [ROW, Pattern("layer"), Pattern.parse("2:4")], ids=str)
def test_sparsegpt_corrects_on_correlated_inputs(pattern, columns):
    weight, x = noise(20, 48), noise(400, 6, seed=1) @ noise(6, 48, seed=2)
    x = x + 0.3 * noise(400, 48, seed=3)
    pruner = make_method("pruner", "sparsegpt", columns=columns)
    mask, new = pruner.prune(unit_of(weight), stats_of(x), pattern, 0.5)
    wrong = (x @ (weight * mask - weight).T).square().sum()
    assert (x @ (new - weight).T).square().sum() < 0.5 * wrong
    assert torch.equal(new == 0, ~mask)
    if pattern.kind == "row":
        assert bool(((~mask).sum(1) == removed_count(48, 0.5)).all())
    decided = pruner.prune(unit_of(weight), stats_of(x), Pattern("global"), 0.5, mask)
    assert torch.equal(decided[0], mask)


def test_a_block_of_columns_does_not_change_the_update():
    """With the mask given, columns at a time only order the sums."""
    weight, x = noise(10, 48), noise(200, 5, seed=1) @ noise(5, 48, seed=2) + noise(200, 48, seed=3)
    mask = noise(10, 48, seed=4) > 0
    made = [
        make_method("pruner", "sparsegpt", columns=columns).prune(
            unit_of(weight.double()), stats_of(x.double()), Pattern("global"), 0.5, mask
        )[1]
        for columns in (8, 48)
    ]
    assert torch.allclose(*made, atol=1e-10)


def neurons(seed: int = 0) -> Unit:
    parts = {name: noise(30, 10, seed=seed + i) for i, name in enumerate(("gate", "up"))}
    parts["down"] = noise(10, 30, seed=seed + 5)
    return Unit("neurons.0", "neurons", 0, parts, (30,))


def test_cfsp_as_released_is_the_activation_norm_alone():
    square = noise(30, seed=9).double().square() + 0.1
    score = make_method("pruner", "cfsp").score(neurons(), Stats(10, square))
    assert torch.allclose(score / square.sqrt(), torch.tensor(3 / 10, dtype=torch.double))
    other = make_method("pruner", "cfsp", fine="row_normalised").score(neurons(), Stats(10, square))
    both = torch.stack((score.argsort().argsort(), other.argsort().argsort())).double()
    assert 0.5 < torch.corrcoef(both)[0, 1] < 0.9999


def turns(*angles: float) -> list[Stats]:
    return [Stats(100, torch.ones(30).double(), None, 100 * a, 1 - a) for a in angles]


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("steepness", [0.0, 1.0, 4.0])
def test_cfsp_budgets_add_up_and_follow_the_angle(ratio, steepness):
    units, cfsp = [neurons(i) for i in range(4)], make_method("pruner", "cfsp", steepness=steepness)
    lost = cfsp.allocate(units, turns(0.5, 0.1, 0.12, 0.3), ratio)
    assert sum(lost) == removed_count(120, ratio)
    if steepness == 0:
        assert max(lost) - min(lost) <= 1
    else:
        assert lost[0] <= lost[3] <= lost[2] <= lost[1]
    assert cfsp.allocate(units, turns(0.5, 0.0, 0.12, 0.3), 0.0) == [0] * 4


def test_cfsp_gives_an_idle_block_the_smallest_budget():
    lost = make_method("pruner", "cfsp").allocate(
        [neurons(i) for i in range(3)], turns(0.2, 0.0, 0.2), 0.4
    )
    assert lost[1] == max(lost) > lost[0]


def test_the_walk_hears_what_the_network_computes():
    model = tiny_network(13, layers=3)
    rows = torch.randint(0, 13, (3, 20), generator=torch.Generator().manual_seed(1))
    heard: dict[str, torch.Tensor] = {}
    handles = [
        one.module.register_forward_pre_hook(
            lambda module, args, name=name: heard.__setitem__(name, args[0].detach())
        )
        for name, one in matrices(model).items()
    ]
    with torch.no_grad():
        model.network(input_ids=rows)
    for handle in handles:
        handle.remove()
    stats = hear(model, rows)
    for name, x in heard.items():
        assert torch.allclose(stats[name].square, x.flatten(0, 1).square().sum(0))
        assert stats[name].tokens == 60
    assert 0 < stats["layers.1"].turn < 60 and stats["layers.1"].cosine < 1


def test_later_blocks_hear_the_pruned_ones():
    model = tiny_network(13, layers=3)
    rows = torch.randint(0, 13, (3, 20), generator=torch.Generator().manual_seed(1))
    pruner, seen = make_method("pruner", "wanda"), {}

    class Noting(type(pruner)):
        def score(self, unit, stats):
            seen[unit.name] = stats
            return super().score(unit, stats)

    dense = hear(model, rows)
    made = prune(model, Noting(), Plan(ROW, 0.5), rows)
    first = next(u.name for u in units_of(model, "weights") if u.layer == 0)
    last = next(u.name for u in units_of(model, "weights") if u.layer == 2)
    assert torch.equal(seen[first].square, dense[first].square)
    assert not torch.allclose(seen[last].square, dense[last].square, rtol=1e-3)
    with made.apply(model):
        behind = hear(model, rows)
    assert torch.allclose(seen[last].square, behind[last].square)


def test_experts_hear_the_tokens_that_are_sent_to_them():
    network = checkpoints.tiny_network("mixtral").requires_grad_(False)
    model = Model("mixtral", network, None, anatomy_of(network))
    rows = torch.randint(0, 260, (2, 20), generator=torch.Generator().manual_seed(1))
    stats = hear(model, rows)
    experts = [s for name, s in stats.items() if "layers.0" in name and "gate_up_proj[" in name]
    assert len(experts) == 4 and sum(s.tokens for s in experts) == 2 * rows.numel()
    walk = Walk(model, rows)
    name = "model.layers.0.mlp.experts.down_proj[0]"
    if name not in stats:
        name = next(n for n in stats if "layers.0" in n and n.endswith("down_proj[0]"))
    assert stats[name].tokens == experts[0].tokens and walk.tokens == 40


def test_text_that_is_empty_or_one_line_is_refused():
    from workbench.models.load import load

    model = load("zoo:draft")
    for texts in ([], [""], ["x = 1"]):
        with pytest.raises(BadInput, match="calibration text"):
            calibration_rows(model, texts)
    with pytest.raises(BadInput, match="calibration text: wanda"):
        prune(model, make_method("pruner", "wanda"), Plan(ROW))
    rows = calibration_rows(model, ["def f(x):\n    return x\n" * 80], row_tokens=64, rows=4)
    assert rows.shape == (4, 64)


def test_what_does_not_fit_is_refused():
    model = tiny_network(13, layers=2)
    with pytest.raises(Mismatch, match="choose layer or global"):
        prune(model, make_method("pruner", "cfsp"), Plan(ROW), torch.zeros(1, 16).long())
    network = checkpoints.tiny_network("gpt2").requires_grad_(False)
    gpt2 = Model("gpt2", network, None, anatomy_of(network))
    with pytest.raises(ModelError, match="gated MLP"):
        units_of(gpt2, "neurons")
