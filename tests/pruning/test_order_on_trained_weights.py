"""How the criteria compare on trained weights: in loss, in acceptance and block by block."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F

from workbench.core.masks import Pattern
from workbench.core.method import make_method
from workbench.core.pruning import Plan
from workbench.models.calibrate import Walk, calibration_rows
from workbench.models.model import Model
from workbench.models.prune import Pruned, prune

MASKS = ("magnitude", "wanda", "ria")


class Measured(NamedTuple):
    """What a pruning costs: nats a token, acceptance as a drafter, blocks' relative error."""

    lost: float
    accepted: float
    blocks: float


@cache
def embedded() -> tuple[Model, Model, torch.Tensor, torch.Tensor]:
    """A model to prune, one that stays whole, calibration rows and held-out rows."""
    from workbench.models.load import load
    from workbench.zoo.held_out import prompts

    model = load("zoo:draft")
    texts = [p.text for p in prompts()]
    rows = calibration_rows(model, texts[:10]), calibration_rows(model, texts[10:])
    return model.clone(), model, *rows


@cache
@torch.no_grad()
def whole() -> torch.Tensor:
    _, dense, _, held = embedded()
    return dense.network(input_ids=held).logits[:, :-1]


@torch.no_grad()
def measured(made: Pruned) -> Measured:
    model, dense, _, held = embedded()
    targets = held[:, 1:].flatten()
    with made.apply(model):
        q = model.network(input_ids=held).logits[:, :-1]
        walk, errors = Walk(dense, held), []
        for index, block in enumerate(model.anatomy.layers):  # each on the dense model's stream
            wanted, found = walk.output(index), walk.output(index, block)
            off = sum(float((a - b).square().sum()) for a, b in zip(found, wanted, strict=True))
            own = zip(wanted, walk.hidden, strict=True)
            errors.append(off / sum(float((a - b).square().sum()) for a, b in own))
            walk.hidden = wanted
    lost = F.cross_entropy(q.flatten(0, 1), targets) - F.cross_entropy(
        whole().flatten(0, 1), targets
    )
    accepted = torch.minimum(whole().softmax(-1), q.softmax(-1)).sum(-1).mean()
    return Measured(float(lost), float(accepted), sum(errors) / len(errors))


class Random(type(make_method("pruner", "magnitude"))):
    def score(self, unit, stats):
        seed = sum(map(ord, unit.name))
        return torch.rand(unit.shape, generator=torch.Generator().manual_seed(seed))


@cache
def criterion(name: str, pattern: str) -> Measured:
    model, _, rows, _ = embedded()
    pruner = Random() if name == "random" else make_method("pruner", name)
    return measured(prune(model, pruner, Plan(Pattern.parse(pattern), 0.5), rows))


@pytest.mark.parametrize("pattern", ["row", "2:4"])
def test_the_order_of_the_criteria(pattern):
    """Corrected weights are ahead of any mask alone, and random ones far behind everything.

    The blocks' error is two thirds and six tenths of the best mask's: these two layers, heard on
    900 tokens, leave less to correct than deeper models do, where it is below a half.
    """
    plain = [criterion(name, pattern) for name in MASKS]
    repaired, random = criterion("sparsegpt", pattern), criterion("random", pattern)
    assert repaired.blocks <= 0.7 * min(one.blocks for one in plain)
    assert repaired.lost < 0.75 * min(one.lost for one in plain)
    assert repaired.accepted >= max(one.accepted for one in plain) + 0.03
    assert random.lost >= 5 * criterion("magnitude", pattern).lost
    assert random.accepted <= min(one.accepted for one in plain) - 0.3


def test_masks_alone_are_alike_within_a_matrix():
    """Small models have no outlier inputs for Wanda to find, and no empty channels for RIA."""
    plain = [criterion(name, "layer").lost for name in MASKS]
    assert max(plain) - min(plain) <= 0.03


@cache
def neurons(fine: str, ratio: float) -> Measured:
    """CFSP with equal budgets, its neurons chosen by ``fine``."""
    model, _, rows, _ = embedded()
    cfsp = type(make_method("pruner", "cfsp"))

    class Chosen(cfsp):
        def score(self, unit, stats):
            size = sum(unit.tensors[one].abs().sum(1) for one in ("up", "gate"))
            if fine == "random":
                return torch.rand(unit.shape, generator=torch.Generator().manual_seed(unit.layer))
            if fine == "magnitude":
                return size + unit.tensors["down"].abs().sum(0)
            return super().score(unit, stats)

    known = {} if fine in ("random", "magnitude") else {"fine": fine}
    return measured(prune(model, Chosen(steepness=0.0, **known), Plan(Pattern(), ratio), rows))


@pytest.mark.parametrize("ratio", [0.3, 0.5])
def test_the_order_of_scores_of_neurons(ratio):
    """Random neurons are far behind, and both of CFSP's scores cost the same to 0.03 nats."""
    scores = [neurons(one, ratio) for one in ("as_released", "row_normalised")]
    size, random = neurons("magnitude", ratio), neurons("random", ratio)
    assert random.lost >= max(one.lost for one in (*scores, size)) + 0.1
    assert max(one.lost for one in scores) - min(one.lost for one in scores) <= 0.03
    assert size.lost > max(one.lost for one in scores)  # how loud they are says more than weights
