"""What tests of trained heads share: a small random target, and states that say a wanted token."""

from __future__ import annotations

import pytest
from oracle_heads import PROMPT

from workbench.models.load import load
from workbench.testing import oracles
from workbench.testing.tiny_network import RuledModel, tiny_network


@pytest.fixture(scope="session")
def tiny() -> RuledModel:
    """Five tokens, six layers, double precision."""
    return tiny_network(5, layers=6, seed=2)


@pytest.fixture(scope="session")
def greedy_answer(tiny) -> list[int]:
    """The prompt and what plain greedy decoding of ``tiny`` says after it."""
    return [*PROMPT, *oracles.plain_greedy(tiny.rule, PROMPT, 80)]


@pytest.fixture(scope="session")
def zoo_target():
    return load("zoo:target")


@pytest.fixture(scope="session")
def held_out(zoo_target) -> list[int]:
    """Tokens of source code that neither the target nor any head was trained on."""
    from workbench.zoo.held_out import prompts

    code = [prompt.text for prompt in prompts() if prompt.name.startswith("code")]
    return zoo_target.tokenizer("\n".join(code))["input_ids"][:600]
