"""Every score, share and budget of the criteria against its formula, written out as a loop."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.core.method import make_method
from workbench.core.pruning import Stats, Unit

NORMS = torch.tensor([0.5, 3.0, 1.0, 2.0], dtype=torch.double)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heard(norms: torch.Tensor = NORMS) -> Stats:
    return Stats(7, norms.square())


def unit_of(kind: str, shape: tuple[int, ...], **tensors: torch.Tensor) -> Unit:
    return Unit("u", kind, 0, tensors, shape)


def test_magnitude_is_the_absolute_value():
    weight = torch.tensor([[-3.0, 1.0], [0.0, -0.5]])
    found = make_method("pruner", "magnitude").score(
        unit_of("weights", (2, 2), weight=weight), None
    )
    assert found.tolist() == [[3.0, 1.0], [0.0, 0.5]]


def test_wanda_is_the_absolute_value_times_the_norm_of_the_input():
    weight = noise(3, 4)
    found = make_method("pruner", "wanda").score(unit_of("weights", (3, 4), weight=weight), heard())
    wanted = [[abs(float(weight[i, j])) * float(NORMS[j]) for j in range(4)] for i in range(3)]
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.double))


@pytest.mark.parametrize("by", ["activation", "weight"])
def test_a_group_is_the_sum_over_its_columns_of_the_output_projection(by):
    """Two groups of two heads, one column each: columns 0 and 1 are the first group's."""
    o = noise(5, 4)
    found = make_method("pruner", "heads", by=by).score(unit_of("groups", (2,), o=o), heard())
    wanted = [0.0, 0.0]
    for column in range(4):
        loud = float(NORMS[column]) if by == "activation" else 1.0
        wanted[column // 2] += sum(abs(float(o[i, column])) for i in range(5)) * loud
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.double))
    assert make_method("pruner", "heads").by == "activation"


def test_a_layer_is_one_minus_the_cosine():
    stats = Stats(7, NORMS, None, turn=3.0, cosine=0.75)
    found = make_method("pruner", "layers").score(unit_of("layers", (1,)), stats)
    assert found.tolist() == [0.25]


def share(matrix: torch.Tensor, place: tuple[int, int], axis: str) -> float:
    """|m| over the sum of its column (``d``: over rows) or of its row (``f``) of ``[d f]``."""
    i, j = place
    line = matrix[:, j] if axis == "d" else matrix[i]
    return abs(float(matrix[i, j])) / sum(abs(float(one)) for one in line)


@pytest.mark.parametrize("fine, axis", [("as_released", "d"), ("row_normalised", "f")])
def test_cfsp_scores_neurons_by_three_shares_and_their_activation(fine, axis):
    down, up, gate = noise(3, 4), noise(4, 3, seed=1), noise(4, 3, seed=2)
    unit = unit_of("neurons", (4,), down=down, up=up, gate=gate)
    found = make_method("pruner", "cfsp", fine=fine).score(unit, heard())
    loud = down * NORMS
    for j in range(4):
        terms = [
            share(loud, (i, j), axis) + share(up.T, (i, j), axis) + share(gate.T, (i, j), axis)
            for i in range(3)
        ]
        assert float(found[j]) == pytest.approx(sum(terms) / 3 * float(NORMS[j]), rel=1e-6)


def blocks(count: int, wide: int) -> list[Unit]:
    parts = {"gate": torch.ones(wide, 3), "up": torch.ones(wide, 3), "down": torch.ones(3, wide)}
    return [unit_of("neurons", (wide,), **parts) for _ in range(count)]


def turned(angles: list[float], cosines: list[float] | None = None) -> list[Stats]:
    """Means over tokens; what is heard is a sum for the angle and a mean for the cosine."""
    cosines = cosines or [0.5] * len(angles)
    return [Stats(50, NORMS, None, 50 * a, c) for a, c in zip(angles, cosines, strict=True)]


def kept_shares(means: list[float], ratio: float, a: float) -> list[float]:
    """The released allocation in the units of its authors: sums over 128 x 1024 tokens, by 1e4."""
    sums = [128 * 1024 * one for one in means]
    middle = sum(sums) / len(sums)
    z = [1 / (1 + math.exp(-a * (one - middle) / 1e4)) for one in sums]
    keep = [one / (sum(z) / len(z)) * (1 - ratio) for one in z]
    mean, most = sum(keep) / len(keep), max(keep)
    if most >= 1:
        shrunk = mean * (1 / (1 - ratio) - 1) / (most - mean) / 1.05
        keep = [mean + (one - mean) * shrunk for one in keep]
    return keep


ANGLES = [0.30, 0.10, 0.12, 0.20]


@pytest.mark.parametrize("steepness", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("ratio, clipped", [(0.6, False), (0.2, True), (0.05, True)])
def test_cfsp_budgets_are_the_authors_with_their_constant(ratio, clipped, steepness):
    wide = 10_000  # a share is then read to four digits
    cfsp = make_method("pruner", "cfsp", steepness=steepness)
    lost = cfsp.allocate(blocks(4, wide), turned(ANGLES), ratio)
    wanted = kept_shares(ANGLES, ratio, steepness)
    assert [1 - one / wide for one in lost] == pytest.approx(wanted, abs=2e-3)
    if steepness == 1.0:  # the two branches of the formula are both walked
        plain = kept_shares(ANGLES, 0.6, 1.0)
        assert (max(one * (1 - ratio) / 0.4 for one in plain) >= 1) == clipped
    assert make_method("pruner", "cfsp").steepness == 1.0


def test_cfsp_may_measure_the_turn_by_the_cosine():
    cosines = [0.9, 0.4, 0.5, 0.7]
    cfsp = make_method("pruner", "cfsp", coarse="cosine")
    lost = cfsp.allocate(blocks(4, 10_000), turned(ANGLES, cosines), 0.6)
    wanted = kept_shares([1 - one for one in cosines], 0.6, 1.0)
    assert [1 - one / 10_000 for one in lost] == pytest.approx(wanted, abs=2e-3)


def test_cfsp_keeps_the_nearest_multiple_and_never_nothing():
    exact = make_method("pruner", "cfsp").allocate(blocks(4, 96), turned(ANGLES), 0.4)
    lost = make_method("pruner", "cfsp", multiple=16).allocate(blocks(4, 96), turned(ANGLES), 0.4)
    for kept, near in ((96 - one, 96 - other) for one, other in zip(exact, lost, strict=True)):
        assert near % 16 == 0 and abs(kept - near) <= 8
    all_but = make_method("pruner", "cfsp", multiple=16).allocate(
        blocks(4, 96), turned(ANGLES), 0.99
    )
    assert all_but == [80] * 4


def test_cfsp_has_nothing_to_share_out_where_every_block_has_a_ratio_of_its_own():
    assert make_method("pruner", "cfsp").allocate([], [], 0.5) == []
