"""What every test runs under: one torch thread, no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list) -> None:
    """Browser tests come last: their one Chromium lives for the rest of the run, with its loop."""
    items.sort(key=lambda item: "/tests/browser/" in item.path.as_posix())
