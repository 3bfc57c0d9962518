"""Masks over weights and over parts of a network, and the patterns that they follow.

*Idea*: a criterion gives scores, a pattern says among what they are compared. Both are separate
values, so criteria x patterns is a grid. A mask keeps exactly as many entries as were asked for:
the k lowest go, ties by index (a threshold ``score <= sorted[k]`` removes one too many, one at
ratio 0, and everything where scores tie).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from workbench.core.errors import BadInput, BadKnob, Mismatch, closest

KINDS = ("row", "layer", "global", "n_m")
SCHEMA = 1
_CHANGED = "changed:"


@dataclass(frozen=True)
class Pattern:
    """Among what scores are compared.

    Args:
        kind: ``row`` = within each output row, ``layer`` = within one matrix (or among the parts of
            one layer), ``global`` = within all of them, ``n_m`` = within groups of consecutive
            inputs of one row.
        keep, of: of ``n_m``: so many stay of every group; 2 of 4 is what GPUs can use. A group that
            the row's end cuts off stays whole.
    """

    kind: str = "layer"
    keep: int = 2
    of: int = 4

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadKnob(f"pattern={self.kind!r}: choose one of {', '.join(KINDS)}")
        if not 0 < self.keep < self.of:
            raise BadKnob(f"pattern={self.keep}:{self.of}: keep some of every group, not all")

    @staticmethod
    def parse(text: str) -> Pattern:
        """``row``, ``layer``, ``global``, or ``2:4`` (2 of 4 stay)."""
        keep, colon, of = text.partition(":")
        if colon and keep.isdigit() and of.isdigit():
            return Pattern("n_m", int(keep), int(of))
        return Pattern(text)

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}" if self.kind == "n_m" else self.kind


def checked_ratio(ratio: float, name: str = "ratio") -> float:
    """The share to remove, in [0, 1).

    Raises:
        BadInput: anything else; at 1 nothing would be left to compute with.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not math.isfinite(ratio):
        raise BadInput(f"{name}={ratio!r}: expected a number from 0 to below 1")
    if ratio == 1:
        raise BadInput(
            f"{name}=1.0 removes everything, and a network without weights says nothing; use 0.99"
            " or less, or drop whole layers"
        )
    if not 0 <= ratio < 1:
        raise BadInput(f"{name}={ratio!r}: must lie in [0, 1)")
    return float(ratio)


def removed_count(count: int, ratio: float) -> int:
    """How many of ``count`` go: the floor, with 0.29 * 100 = 28.999... read as 29."""
    return math.floor(round(ratio * count, 6))


def lowest(scores: Float[torch.Tensor, "*rows n"], count: int) -> Bool[torch.Tensor, "*rows n"]:
    """True at exactly ``count`` entries of each row: the lowest, ties by index.

    Raises:
        BadInput: scores that are not finite, which no order can be trusted with.
    """
    if not bool(torch.isfinite(scores).all()):
        raise BadInput("scores: hold NaN or infinity; calibrate on text that the model can read")
    found = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    if count <= 0:
        return found
    order = scores.argsort(dim=-1, stable=True)[..., :count]
    return found.scatter_(-1, order, True)


def keep_mask(
    scores: Float[torch.Tensor, "*rows n"], pattern: Pattern, ratio: float
) -> Bool[torch.Tensor, "*rows n"]:
    """What stays of one matrix (or of one layer's parts).

    Args:
        scores: higher = keep; a row an output.
        pattern: ``global`` is read as ``layer`` here; :func:`keep_masks` sees all of them.
        ratio: share that goes; with ``n_m`` only 0 (nothing goes) differs from the rest.
    """
    if checked_ratio(ratio) == 0:
        return torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    if pattern.kind == "row":
        return ~lowest(scores, removed_count(scores.shape[-1], ratio))
    if pattern.kind == "n_m":
        return _keep_of_groups(scores, pattern)
    flat = scores.flatten()
    return ~lowest(flat, removed_count(len(flat), ratio)).view(scores.shape)


def _keep_of_groups(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    whole = scores.shape[-1] // pattern.of * pattern.of
    groups = scores[..., :whole].reshape(*scores.shape[:-1], -1, pattern.of)
    kept = ~lowest(groups, pattern.of - pattern.keep)
    mask = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    mask[..., :whole] = kept.reshape(*scores.shape[:-1], whole)
    return mask


def keep_masks(
    scores: Mapping[str, torch.Tensor], pattern: Pattern, ratios: Mapping[str, float]
) -> dict[str, torch.Tensor]:
    """The masks of all matrices; a global pattern compares those of equal ratio with each other."""
    if pattern.kind != "global":
        return {name: keep_mask(one, pattern, ratios[name]) for name, one in scores.items()}
    made: dict[str, torch.Tensor] = {}
    for ratio in dict.fromkeys(ratios[name] for name in scores):
        names = [name for name in scores if ratios[name] == ratio]
        flat = torch.cat([scores[name].flatten() for name in names])
        kept = keep_mask(flat, Pattern("layer"), ratio).split([scores[n].numel() for n in names])
        made |= {n: part.view(scores[n].shape) for n, part in zip(names, kept, strict=True)}
    return {name: made[name] for name in scores}


@dataclass(frozen=True, eq=False)
class MaskSet:
    """What stays of a network: True = kept.

    Args:
        weights: name of a matrix -> mask ``[out in]``.
        parts: ``neurons.3``, ``groups.3`` or ``layers`` -> mask over the neurons or KV groups of
            layer 3, or over the layers.
        fingerprint: of the model that it was made for.
        note: how it was made.
    """

    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    fingerprint: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("weights", "parts"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskSet):
            return NotImplemented
        mine, its = self._all(), other._all()
        return mine.keys() == its.keys() and all(torch.equal(mine[n], its[n]) for n in mine)

    __hash__ = None  # type: ignore[assignment]

    def _all(self) -> dict[str, torch.Tensor]:
        return {**self.weights, **self.parts}

    @property
    def density(self) -> float:
        """Kept share of all entries of the weight masks; 1 without any."""
        total = sum(mask.numel() for mask in self.weights.values())
        kept = sum(int(mask.sum()) for mask in self.weights.values())
        return kept / total if total else 1.0

    def combined(self, other: MaskSet) -> MaskSet:
        """What both keep."""

        def both(mine: Mapping, its: Mapping) -> dict[str, torch.Tensor]:
            shared = {n: _fit(n, its[n], mine[n].shape) & mine[n] for n in mine if n in its}
            return {**mine, **its, **shared}

        weights, parts = both(self.weights, other.weights), both(self.parts, other.parts)
        return replace(self, weights=weights, parts=parts)

    def painted(
        self, name: str, shape: tuple[int, ...], cells: Iterable[tuple[int, ...]], keep: bool
    ) -> MaskSet:
        """With some entries set; a mask that was not there begins as all kept.

        Args:
            name: of a matrix or of parts.
            shape: of the mask.
            cells: indices, one tuple an entry.

        Raises:
            BadInput: an index outside the mask.
        """
        group = "weights" if len(shape) == 2 else "parts"
        masks = dict(getattr(self, group))
        old = masks.get(name)
        mask = torch.ones(shape, dtype=torch.bool) if old is None else _fit(name, old, shape)
        mask = mask.clone()
        wanted = torch.tensor(list(cells), dtype=torch.long).reshape(-1, len(shape))
        limit = torch.tensor(shape)
        if bool(((wanted < 0) | (wanted >= limit)).any()):
            raise BadInput(f"cells: outside {name}, which is {'x'.join(map(str, shape))}")
        mask[tuple(wanted.T)] = keep
        masks[name] = mask
        return replace(self, weights=masks) if group == "weights" else replace(self, parts=masks)

    def check(self, shapes: Mapping[str, tuple[int, ...]], fingerprint: str = "") -> MaskSet:
        """Itself, if it fits a network.

        Args:
            shapes: name -> shape of every mask that the network can have.
            fingerprint: of the network; empty = do not compare.

        Raises:
            BadInput: a matrix that is not there, or a mask of another shape.
            Mismatch: made for another model.
        """
        for name, mask in self._all().items():
            if name not in shapes:
                raise BadInput(f"mask: this network has no {name!r}.{closest(name, shapes)}")
            _fit(name, mask, shapes[name])
        if fingerprint and self.fingerprint and fingerprint != self.fingerprint:
            raise Mismatch(
                f"mask: made for the model with fingerprint {self.fingerprint}, this one has"
                f" {fingerprint}; its shapes fit, but it says nothing about these weights"
            )
        return self

    def to_bytes(self, changed: Mapping[str, torch.Tensor] | None = None) -> bytes:
        """A safetensors file: eight mask entries a byte; shapes and fingerprint in its header.

        Args:
            changed: weights that are not the model's own any more, by name; of a masked matrix
                only what is kept is stored.
        """
        from safetensors.torch import save

        changed = {name: value.detach().cpu() for name, value in (changed or {}).items()}
        head = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "note": self.note,
            "weights": {name: list(mask.shape) for name, mask in self.weights.items()},
            "parts": {name: list(mask.shape) for name, mask in self.parts.items()},
            "changed": {name: list(value.shape) for name, value in changed.items()},
        }
        packed = {name: _packed(mask) for name, mask in self._all().items()}
        for name, value in changed.items():
            mask = self.weights.get(name)
            packed[_CHANGED + name] = value.flatten() if mask is None else value[mask.cpu()]
        return save(packed, {"mask": json.dumps(head)})

    @staticmethod
    def from_bytes(data: bytes, name: str = "mask") -> MaskSet:
        """Read what :meth:`to_bytes` wrote, where the mask is all there is.

        Raises:
            BadInput: another kind of file, a damaged one, or one with changed weights, which are
                part of what was saved: :func:`opened` reads both.
        """
        masks, changed = opened(data, name)
        if changed:
            raise BadInput(
                f"{name}: holds {len(changed)} corrected weights beside the mask, and the mask"
                " alone would be another model; open it as a pruned model"
            )
        return masks


def opened(data: bytes, name: str = "mask") -> tuple[MaskSet, dict[str, torch.Tensor]]:
    """The mask of a saved file, and the weights that were changed where they stay.

    Raises:
        BadInput: another kind of file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        size = int.from_bytes(data[:8], "little")
        head = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["mask"])
        if head["schema"] != SCHEMA:
            raise BadInput(f"{name}: schema {head['schema']}, this version reads {SCHEMA}")
        packed = load(data)
        groups = {
            group: {n: _unpacked(packed[n], shape) for n, shape in head[group].items()}
            for group in ("weights", "parts")
        }
        masks = MaskSet(**groups, fingerprint=str(head["fingerprint"]), note=str(head["note"]))
        changed = {
            n: _filled(packed[_CHANGED + n], shape, masks.weights.get(n))
            for n, shape in head.get("changed", {}).items()
        }
    except BadInput:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,  # RecursionError is one
        SafetensorError,
    ) as error:
        raise BadInput(f"{name}: is no saved mask ({type(error).__name__}: {error})") from None
    return masks, changed


def _filled(values: torch.Tensor, shape: list[int], mask: torch.Tensor | None) -> torch.Tensor:
    """A changed weight in its own shape, zero where nothing is kept."""
    if not values.is_floating_point() or not bool(values.isfinite().all()):
        raise ValueError("a changed weight holds no finite numbers")
    if mask is None:
        return values.view(shape)
    if list(mask.shape) != list(shape) or len(values) != int(mask.sum()):
        raise ValueError(f"{len(values)} values for {int(mask.sum())} kept weights")
    return torch.zeros(shape, dtype=values.dtype).masked_scatter_(mask, values)


def _fit(name: str, mask: torch.Tensor, shape: Any) -> torch.Tensor:
    if tuple(mask.shape) != tuple(shape):
        has, wanted = "x".join(map(str, mask.shape)), "x".join(map(str, shape))
        raise BadInput(f"mask {name!r} is {has}, but the network's is {wanted}; open another mask")
    return mask


def _packed(mask: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def _unpacked(packed: torch.Tensor, shape: list[int]) -> torch.Tensor:
    count = math.prod(int(n) for n in shape)
    if packed.dtype != torch.uint8 or len(packed) != (count + 7) // 8:
        raise ValueError(f"{len(packed)} bytes for {count} entries")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).astype(bool)).view(shape)
