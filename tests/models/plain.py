"""The slow, obvious reference: whole sequences through the model as transformers ships it."""

from __future__ import annotations

import torch

from workbench.models.model import Model
from workbench.models.session import Session

# Root, two children, ...: parents first, neither depth-first nor breadth-first.
PARENT = (-1, 0, 0, 1, 2, 1, 4, 3)
LEAF = 6  # its path skips rows: 0, 2, 4, 6


def some_tokens(count: int, seed: int = 3, top: int = 256) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, top, (count,), generator=generator).tolist()


def path_to(row: int, parent=PARENT) -> list[int]:
    path = []
    while row >= 0:
        path.append(row)
        row = parent[row]
    return path[::-1]


@torch.inference_mode()
def plain_logits(model: Model, tokens: list[int]) -> torch.Tensor:
    """Logits after the last token: no cache, no mask, no session."""
    ids = torch.tensor([tokens])
    return model.network(input_ids=ids, use_cache=False).logits[0, -1].float()


def tree_logits(model: Model, prefix: list[int], rows: list[int], parent=PARENT) -> torch.Tensor:
    """What each row of a tree must give: a plain forward of prefix + path, ``[n v]``."""
    wanted = [
        plain_logits(model, prefix + [rows[r] for r in path_to(row, parent)])
        for row in range(len(rows))
    ]
    return torch.stack(wanted)


def deviation(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference in units of the spread of the logits."""
    return float((got.float() - wanted).abs().max() / wanted.std())


def check_next(session: Session, token: int, limit: float = 1e-5) -> None:
    """The stored text and one more token give what a fresh forward gives; nothing is kept."""
    got = session.forward([token]).logits[-1]
    wanted = plain_logits(session.model, [*session.tokens, token])
    assert deviation(got, wanted) <= limit


@torch.inference_mode()
def transformers_text(model: Model, prompt: list[int], count: int) -> list[int]:
    """New tokens of transformers' own greedy ``generate``."""
    ids = torch.tensor([prompt])
    out = model.network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count
    )
    return out[0, len(prompt) :].tolist()
