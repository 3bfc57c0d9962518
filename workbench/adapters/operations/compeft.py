"""An adapter in a few kilobytes: the signs of its largest changes and one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from workbench.core.method import Paper, knob, method
from workbench.core.ternary import encode
from workbench.models.adapter_checks import kind_of
from workbench.models.adapting import Adapters

LEAST_SQUARES = 0.0


def compress(
    change: torch.Tensor, keep: float, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The ternary form of a flat change ``[d]``: what it becomes ``[d]``, its signs, its scale.

    Exactly round(keep x d) entries survive, all of size alpha x std(change); alpha 0 = the scale
    nearest to the change (the mean size of what survives).
    """
    count = round(keep * len(change))
    signs = torch.zeros(len(change), dtype=torch.int8, device=change.device)
    places = change.abs().topk(count).indices
    signs[places] = change[places].sign().to(torch.int8)
    if alpha == LEAST_SQUARES:
        scale = float(change[places].abs().mean()) if count else 0.0
    else:
        scale = alpha * float(change.std())
    return signs.to(change.dtype) * scale, signs, scale


@method(
    "operation",
    title="ComPEFT",
    paper=Paper(
        "ComPEFT: Compression for Communicating Parameter Efficient Updates", 2023, "2311.13171"
    ),
)
class Compeft:
    """Keep the signs of the largest changes of the whole adapter, and one common size.

    *Idea*: what matters in an adapter is where and which way it changes much; the sizes are alike.
    No training is needed, only a search for one scale.

    *Paper*: Yadav et al. 2023 (arXiv 2311.13171): one threshold for the whole adapter, the size is
    alpha times the standard deviation of all entries.

    *Deviations*: ``from_start`` measures the change from the tensors that the adapter began with,
    where these are known; the published code takes 0 for LoRA, so its random A competes with what
    was learnt. alpha 0 takes the least-squares size instead of searching on validation data; sweep
    it with the slider. Positions are coded as Golomb-Rice gaps. All tensors of the adapter take
    part, also modules that were trained whole.

    *Cost*: a partial sort of the adapter's entries. Small models compress badly.
    """

    many = False

    keep: float = knob(0.2, low=0.01, high=1.0, step=0.01, help="Share of the entries that stay.")
    alpha: float = knob(
        LEAST_SQUARES,
        low=0.0,
        high=10.0,
        step=0.1,
        unit="standard deviations",
        help="Size of what stays; 0 = the size nearest to the adapter.",
    )
    from_start: bool = knob(True, help="Compress the change from the adapter's first tensors.")

    def compressed(
        self, tensors: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The tensors of the compressed adapter, and what there is to know about them."""
        names = sorted(tensors)
        change = torch.cat([(tensors[n] - reference[n]).float().flatten() for n in names])
        found, signs, scale = compress(change, self.keep, self.alpha)
        data = encode(signs.cpu().numpy().astype(np.int8), scale)
        parts = found.split([tensors[name].numel() for name in names])
        made = {
            name: (reference[name] + part.view_as(tensors[name])).to(tensors[name].dtype)
            for name, part in zip(names, parts, strict=True)
        }
        facts = {
            "bytes": len(data),
            "bytes_fp16": 2 * len(change),
            "kept": int(signs.count_nonzero()),
            "scale": scale,
            "alpha": scale / float(change.std()) if float(change.std()) else 0.0,
            "error": float((found - change).norm() / change.norm().clamp_min(1e-12)),
        }
        return made, facts

    def combine(self, adapters: Adapters, names: Sequence[str], name: str) -> dict[str, Any]:
        """Attach the compressed form of the first adapter."""
        tensors, config = adapters.state(names[0]), adapters.config(names[0])
        start = adapters.start(names[0]) if self.from_start else {}
        neutral = 1.0 if kind_of(config) == "IA3" else 0.0
        if set(start) != set(tensors):
            start = {key: torch.full_like(value, neutral) for key, value in tensors.items()}
        # ranks that never lived are cut off the end of an adapter that grew
        start = {key: start[key][tuple(map(slice, v.shape))] for key, v in tensors.items()}
        made, facts = self.compressed(tensors, start)
        adapters.put(config, made, name)
        return facts
