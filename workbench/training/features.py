"""What heads are trained on: rows of text with the target's states, computed once and kept on disk.

The target is frozen, so its forward need not be repeated every epoch: the final normed states (from
which the LM head gives the teacher's law) and the streams that a head reads are stored as bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workbench.core.inference import inference_mode


@dataclass(frozen=True)
class Batch:
    """Rows ``ids [b t]`` and states ``[b t d]`` by tap (``"final"``, or ``"k"`` after k layers)."""

    ids: torch.Tensor
    states: dict[str, torch.Tensor]

    @property
    def final(self) -> torch.Tensor:
        return self.states["final"]


class Features:
    """Rows and states on disk; ``features[[3, 1]]`` is a batch.

    Args:
        rows: ``[rows t]`` token ids.
        states: tap -> ``[rows t d]`` bf16 bits as int16, memory-mapped.
    """

    def __init__(self, rows: np.ndarray, states: dict[str, np.ndarray]):
        self.rows, self.states = rows, states

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices, device: torch.device | str = "cpu") -> Batch:
        """Rows by index, on ``device``, states in fp32."""
        picked = np.sort(np.asarray(indices))
        ids = torch.from_numpy(self.rows[picked].astype(np.int64)).to(device)
        states = {
            tap: torch.from_numpy(np.array(kept[picked])).view(torch.bfloat16).to(device).float()
            for tap, kept in self.states.items()
        }
        return Batch(ids, states)


@inference_mode()
def write_features(
    model,
    rows: np.ndarray,
    taps: tuple[str, ...],
    folder: Path,
    *,
    batch_rows: int = 16,
    report: Callable[[int, int], None] = lambda done, rows: None,
) -> Features:
    """Run the target over ``rows`` and keep its states; what ``folder`` already holds is reused.

    Args:
        model: a walkable :class:`workbench.models.model.Model`.
        taps: ``"final"`` and/or ``"k"``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{model.fingerprint}-{len(rows)}-{'-'.join(taps)}.done"
    width = model.network.config.get_text_config().hidden_size
    shape = (*rows.shape, width)
    paths = {tap: folder / f"{tap}.npy" for tap in taps}
    if not mark.exists():
        stores = {
            tap: np.lib.format.open_memmap(path, "w+", np.int16, shape)
            for tap, path in paths.items()
        }
        for start in range(0, len(rows), batch_rows):
            ids = torch.from_numpy(rows[start : start + batch_rows].astype(np.int64))
            states = states_of(model, ids.to(model.torch_device), taps)
            for tap, rows_now in states.items():
                bits = rows_now.to(torch.bfloat16).cpu().view(torch.int16).numpy()
                stores[tap][start : start + batch_rows] = bits
            report(min(start + batch_rows, len(rows)), len(rows))
        for store in stores.values():
            store.flush()
        mark.touch()
    kept = {tap: np.load(path, mmap_mode="r", allow_pickle=False) for tap, path in paths.items()}
    return Features(rows, kept)


def states_of(model, ids: torch.Tensor, taps: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """States ``[b t d]`` of a batch of whole rows from the model's own forward."""
    output = model.network.base_model(ids, use_cache=False, output_hidden_states=True)
    every = output.hidden_states
    return {tap: every[-1 if tap == "final" else int(tap)] for tap in taps}
