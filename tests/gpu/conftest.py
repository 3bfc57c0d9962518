"""A device that is only pretended, and models that stand on it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from gpu.pretend import ELSEWHERE, Pretending, moved

from workbench.models.anatomy import anatomy_of
from workbench.models.model import Model


@pytest.fixture
def pretending(monkeypatch) -> Iterator[Pretending]:
    """Weights that are moved become new tensors, as those of another kind have to."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with torch.inference_mode(), Pretending() as mode:
        yield mode
    torch.__future__.set_overwrite_module_params_on_conversion(before)


@pytest.fixture
def elsewhere(pretending) -> Callable[[Model], Model]:
    """``elsewhere(model)``: the same weights on the pretended device."""

    def placed(near: Model) -> Model:
        with torch.inference_mode(False):
            network = moved(copy.deepcopy(near.network))
        model = Model("far", network, near.tokenizer, anatomy_of(network), mode="fused")
        assert model.torch_device == ELSEWHERE
        return model

    return placed
