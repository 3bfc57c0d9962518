"""Heads on a model whose parts are not known: a message with the way out, not a deep traceback."""

from __future__ import annotations

import dataclasses

import pytest

from workbench.core.errors import ModelError
from workbench.core.method import make_method
from workbench.engine.run import RunSettings, generate


@pytest.mark.parametrize("drafter", ["medusa", "hydra", "eagle", "kangaroo"])
def test_heads_say_what_to_choose_instead(loaded, drafter):
    known = loaded("llama")
    model = dataclasses.replace(known, anatomy=None, mode="stock")
    with pytest.raises(ModelError, match="'llama' model are not known.*prompt_lookup"):
        generate(RunSettings(model, "abc", make_method("drafter", drafter, heads="untrained")))
