"""What the recipes that train on rows of token ids hand to transformers' Trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from workbench.models.model import Model


class TokenRows(Dataset):
    """Rows of ids ``[b t]``, one an example."""

    def __init__(self, rows: torch.Tensor):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index]


class Logits(nn.Module):
    """The network behind a name of its own, so that the Trainer takes no liberties with it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.network(input_ids=ids, use_cache=False).logits


def quiet(model: Model, seed: int) -> dict[str, Any]:
    """Arguments of every training here: seeded, on the model's device, nothing printed or sent."""
    return {
        "seed": seed,
        "data_seed": seed,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "use_cpu": model.torch_device.type == "cpu",
        "log_level": "error",
    }
