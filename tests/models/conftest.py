"""Checkpoints on disk and loaded models, each built once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.models.load import load
from workbench.models.model import Model
from workbench.testing.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """``checkpoint(family, **changes)``: a folder, the same one for the same arguments."""
    made: dict[str, Path] = {}

    def build(family: str, **changes) -> Path:
        key = f"{family}{sorted(changes.items())}"
        if key not in made:
            made[key] = write_checkpoint(tmp_path_factory.mktemp(family), family, **changes)
        return made[key]

    return build


@pytest.fixture(scope="session")
def loaded(checkpoint) -> Callable[..., Model]:
    """``loaded(family, **changes)``: a model, the same one for the same arguments."""
    made: dict[Path, Model] = {}

    def get(family: str, **changes) -> Model:
        folder = checkpoint(family, **changes)
        if folder not in made:
            made[folder] = load(str(folder))
        return made[folder]

    return get
