"""Several adapters in one: each without its many small changes and its few largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float

from workbench.core.errors import BadKnob
from workbench.core.method import Paper, knob, method
from workbench.models.adapting import Adapters
from workbench.models.updates import deltas, from_deltas


def crumbs(
    change: Float[torch.Tensor, "o i"], keep: float, remove: float, by_row: bool
) -> Bool[torch.Tensor, "o i"]:
    """Which entries stay: the largest ``remove`` go, then the next ``keep`` are kept.

    Counts are rounded, of each row or of the whole matrix. In this order exactly keep x n stay; the
    other way round it would be (keep - remove) x n.
    """
    rows = change.abs() if by_row else change.abs().reshape(1, -1)
    n = rows.shape[1]
    top, kept = round(remove * n), round(keep * n)
    order = rows.argsort(dim=1, descending=True)[:, top : top + kept]
    mask = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order, True)
    return mask.view_as(change)


@method(
    "operation",
    title="Model Breadcrumbs",
    paper=Paper("Model Breadcrumbs: Scaling Multi-Task Model Merging", 2023, "2312.06795"),
)
class Breadcrumbs:
    """Sum the adapters' weight changes after cutting both tails of their sizes.

    *Idea*: the many tiny changes are noise and the few largest disturb the other tasks; without
    both, changes add up with less interference, and one setting serves any number of tasks.

    *Paper*: Davari and Belilovsky 2023 (arXiv 2312.06795): masks by layer, task vectors summed and
    scaled by alpha; no election of signs, no rescaling.

    *Deviations*: the change of each adapted matrix is the adapter's product (at the strength that
    is set), not a difference of whole models. ``keep`` is the share kept (the paper's beta is the
    share dropped). Tails are those of a whole matrix, as the paper says; the published code cuts by
    row (``by_row``) and searches alpha from 0.2 on validation data, here it is a slider. A masked
    change has full rank; it is stored as a LoRA of ``rank``, 0 = exactly. A bias is not merged.
    On a single adapter cutting the largest changes costs quality: this is for merging.

    *Cost*: a sort and a singular value decomposition of each matrix.
    """

    many = True

    keep: float = knob(0.15, low=0.01, high=1.0, step=0.01, help="Share of entries that stay.")
    remove: float = knob(0.006, low=0.0, high=0.2, step=0.001, help="Share cut at the top.")
    alpha: float = knob(0.5, low=0.0, high=2.0, step=0.05, help="Factor of the sum.")
    by_row: bool = knob(False, help="Cut by row, as the published code; else by matrix.")
    rank: int = knob(0, low=0, high=256, unit="ranks", help="Of the result; 0 = full, exact.")

    def check_knobs(self) -> None:
        if self.keep + self.remove > 1 + 1e-9:
            raise BadKnob(
                f"breadcrumbs.keep={self.keep} and remove={self.remove}: more than everything;"
                f" choose keep <= {1 - self.remove:g}"
            )

    def merged(
        self, tasks: Sequence[Mapping[str, torch.Tensor]]
    ) -> tuple[dict[str, torch.Tensor], float]:
        """alpha x the sum of the masked changes, and the mean overlap of the tasks' masks."""
        total: dict[str, torch.Tensor] = {}
        masks: list[dict[str, torch.Tensor]] = []
        for task in tasks:
            kept = {
                path: crumbs(change, self.keep, self.remove, self.by_row)
                for path, change in task.items()
            }
            masks.append(kept)
            for path, change in task.items():
                part = self.alpha * change * kept[path]
                total[path] = total[path] + part if path in total else part
        return total, _jaccard(masks)

    def combine(self, adapters: Adapters, names: Sequence[str], name: str) -> dict[str, Any]:
        """Attach the merged adapter."""
        total, overlap = self.merged([deltas(adapters, one) for one in names])
        lost = from_deltas(adapters, total, self.rank, name)
        kept = sum(int(change.count_nonzero()) for change in total.values())
        size = sum(change.numel() for change in total.values())
        return {"kept": kept, "density": kept / size, "overlap": overlap, "error": lost}


def _jaccard(masks: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """Mean over pairs of tasks of |both| / |either|; 0 for a single task."""
    found = []
    for index, one in enumerate(masks):
        for other in masks[index + 1 :]:
            paths = set(one) & set(other)
            both = sum(int((one[path] & other[path]).sum()) for path in paths)
            either = sum(int((one[path] | other[path]).sum()) for path in paths)
            found.append(both / either if either else 0.0)
    return sum(found) / len(found) if found else 0.0
