"""What a pruner is: it scores units of a network, higher = keep; the rest is the engine's.

A *unit* is what one score tensor is about: a weight matrix ``[out in]``, the neurons ``[f]`` of a
layer's gated MLP, its KV groups ``[g]`` (a key/value head with the query heads that share it), or
the layer itself ``[1]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from workbench.core.errors import Mismatch
from workbench.core.masks import Pattern, checked_ratio

PATTERNS = {
    "weights": ("row", "layer", "global", "2:4", "4:8", "1:4"),
    "neurons": ("layer", "global"),
    "groups": ("layer", "global"),
    "layers": ("global",),
}


@dataclass(frozen=True, eq=False)
class Stats:
    """What calibration heard; which parts are filled follows from ``Pruner.hears``.

    Args:
        tokens: heard.
        square: sum over tokens of x_j^2, of the inputs of the matrix that the unit is judged by.
        gram: sum over tokens of x x^T, of the same.
        turn: sum over tokens of the angle between what enters and leaves the layer, in half turns.
        cosine: mean over tokens of the cosine of that angle.

    Shapes: square ``[in]``, gram ``[in in]``.
    """

    tokens: int
    square: torch.Tensor
    gram: torch.Tensor | None = None
    turn: float = 0.0
    cosine: float = 1.0

    @property
    def norms(self) -> Float[torch.Tensor, "n"]:
        """||X_j||_2 over all tokens, in double precision."""
        return self.square.double().sqrt()


@dataclass(frozen=True, eq=False)
class Unit:
    """One thing to score.

    Args:
        name: of its mask.
        kind: ``weights``, ``neurons``, ``groups`` or ``layers``.
        layer: index.
        tensors: what it is made of: ``weight [out in]``; or ``gate``/``up`` ``[f d]`` and ``down``
            ``[d f]``; or ``o`` ``[d heads*size]``.
        shape: of the score.
    """

    name: str
    kind: str
    layer: int
    tensors: Mapping[str, torch.Tensor]
    shape: tuple[int, ...]

    @property
    def weight(self) -> Float[torch.Tensor, "out in"]:
        return self.tensors["weight"]


@dataclass(frozen=True)
class Plan:
    """How much goes.

    Args:
        pattern: among what scores are compared.
        ratio: share that goes.
        layers: ratios of single layers that differ.

    Raises:
        BadInput: a ratio outside [0, 1).
    """

    pattern: Pattern = field(default_factory=Pattern)
    ratio: float = 0.5
    layers: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", checked_ratio(self.ratio))
        for layer, ratio in self.layers.items():
            checked_ratio(ratio, f"ratio of layer {layer}")

    def of(self, unit: Unit) -> float:
        """The ratio of one unit."""
        return self.layers.get(unit.layer, self.ratio)


@runtime_checkable
class Pruner(Protocol):
    """A criterion. Stateless.

    ``acts_on`` is a key of :data:`PATTERNS`; ``hears`` names the statistics that :meth:`score`
    reads: ``""`` none, ``norms``, ``gram``, ``turns``. ``one_shot`` = all statistics come from the
    dense model; otherwise each block is heard behind the already pruned ones.

    Two optional members: ``prune(unit, stats, pattern, ratio, mask=None) -> (mask, weight)`` for
    criteria that also change what stays (``mask``: what goes is already decided), and
    ``allocate(units, stats, ratio) -> counts`` for those that decide how much each unit loses.
    """

    acts_on: str
    hears: str
    one_shot: bool

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor: ...


def check_pattern(pruner: Pruner, pattern: Pattern) -> None:
    """Refuse a pattern that the pruner's units cannot follow.

    Raises:
        Mismatch: naming those that fit.
    """
    allowed = PATTERNS[pruner.acts_on]
    grouped = pattern.kind == "n_m" and pruner.acts_on == "weights"
    if str(pattern) not in allowed and not grouped:
        name = getattr(pruner, "name", type(pruner).__name__)
        raise Mismatch(
            f"pattern={str(pattern)!r}: {name} removes {pruner.acts_on}; choose"
            f" {' or '.join(allowed)}"
        )


def heard(stats: Stats | None, unit: Unit) -> Stats:
    """The statistics, or the reason why there are none.

    Raises:
        Mismatch: none were collected.
    """
    if stats is None:
        raise Mismatch(f"{unit.name}: this criterion needs calibration text; pass some rows")
    return stats


def shares(weights: Sequence[float], total: int, most: int) -> list[int]:
    """Whole numbers that sum to ``total``, in proportion to ``weights`` as near as can be.

    Largest remainders first, ties by index; nobody gets more than ``most``, nor nothing as long as
    somebody has two.
    """
    total = min(total, most * len(weights))
    given = [0.0] * len(weights)
    free, left = list(range(len(weights))), float(total)
    while free and left > 1e-9:
        mass = sum(weights[i] for i in free)
        wanted = {i: left * (weights[i] / mass if mass > 0 else 1 / len(free)) for i in free}
        full = [i for i in free if wanted[i] >= most]
        if not full:
            for i in free:
                given[i] = wanted[i]
            break
        for i in full:
            given[i] = float(most)
        left -= most * len(full)
        free = [i for i in free if i not in full]
    whole = [int(one + 1e-9) for one in given]
    order = sorted(range(len(given)), key=lambda i: (whole[i] - given[i], i))
    for i in [i for i in order if whole[i] < most][: total - sum(whole)]:
        whole[i] += 1
    while 0 in whole and max(whole) > 1:
        whole[whole.index(max(whole))] -= 1
        whole[whole.index(0)] = 1
    return whole
