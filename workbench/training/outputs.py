"""The target's own outputs, which every head learns from: rows of text it wrote, and plain rows.

*Idea*: a head is used on text that the target wrote, so that is what it should be trained on. Each
row starts with a cut of a document and goes on as the target continues it, at one of several
temperatures; a part of the rows is left as it is in the documents, since prompts look like that.

*Paper*: self-distillation as in Medusa (arXiv 2401.10774, section 2.3) and FastDraft.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from workbench.core.inference import inference_mode


@dataclass(frozen=True)
class OutputSettings:
    """How much text, and how it is made.

    Args:
        rows: sequences in all, ``row_tokens`` tokens each.
        prompt_tokens: length of the cut that the target continues.
        temperatures: taken in turn, a batch each; 0 = greedy.
        plain_ratio: share of the rows that are copied from the documents unchanged.
    """

    rows: int = 4096
    row_tokens: int = 256
    prompt_tokens: int = 48
    batch_rows: int = 128
    temperatures: tuple[float, ...] = (0.8, 1.0, 0.6, 0.0)
    plain_ratio: float = 0.25
    seed: int = 7


def cuts(
    documents: Sequence[np.ndarray], count: int, length: int, rng: np.random.Generator
) -> np.ndarray:
    """``[count, length]`` windows of the documents, each token of them equally likely to start."""
    usable = [d for d in documents if len(d) >= length]
    weights = np.array([len(d) - length + 1 for d in usable], dtype=float)
    picked = rng.choice(len(usable), size=count, p=weights / weights.sum())
    found = np.empty((count, length), dtype=usable[0].dtype)
    for row, index in enumerate(picked):
        start = int(rng.integers(len(usable[index]) - length + 1))
        found[row] = usable[index][start : start + length]
    return found


@inference_mode()
def continued(network, starts: np.ndarray, length: int, temperature: float) -> np.ndarray:
    """Rows ``[b length]``: the starts ``[b s]`` and what the network writes after them."""
    ids = torch.from_numpy(starts.astype(np.int64)).to(network.device)
    new = length - ids.shape[1]
    how = (
        {"do_sample": False}
        if temperature == 0
        else {
            "do_sample": True,
            "temperature": temperature,
            "top_k": 0,
        }
    )
    rows = network.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, **how
    )
    return rows.cpu().numpy().astype(starts.dtype)


def write_outputs(
    network,
    documents: Sequence[np.ndarray],
    folder: Path,
    settings: OutputSettings,
    report: Callable[[int, int], None] = lambda done, rows: None,
) -> np.ndarray:
    """Make ``rows.npy`` in ``folder`` batch by batch, going on where an earlier call stopped.

    Returns:
        The rows ``[rows, row_tokens]``, in the documents' own type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = json.dumps(asdict(settings))
    card, batches = folder / "settings.json", []
    if not card.exists() or card.read_text() != said:
        for old in folder.glob("batch-*.npy"):
            old.unlink()
        card.write_text(said)
    for number in range(-(-settings.rows // settings.batch_rows)):
        path = folder / f"batch-{number:04d}.npy"
        if not path.exists():
            batch = _batch(network, documents, number, settings)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, batch, allow_pickle=False)
            partial.replace(path)
        batches.append(np.load(path, allow_pickle=False))
        report(min((number + 1) * settings.batch_rows, settings.rows), settings.rows)
    return np.concatenate(batches)[: settings.rows]


def _batch(network, documents, number: int, settings: OutputSettings) -> np.ndarray:
    rng = np.random.default_rng([settings.seed, number])
    torch.manual_seed(settings.seed + number)
    plain = round(settings.batch_rows * settings.plain_ratio)
    copied = cuts(documents, plain, settings.row_tokens, rng)
    starts = cuts(documents, settings.batch_rows - plain, settings.prompt_tokens, rng)
    temperature = settings.temperatures[number % len(settings.temperatures)]
    written = continued(network, starts, settings.row_tokens, temperature)
    return np.concatenate((copied, written))
