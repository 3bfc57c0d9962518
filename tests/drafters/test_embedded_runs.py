"""Every drafter with its trained heads on the embedded pair: exact text at T = 0, to the token."""

from __future__ import annotations

import pytest

from workbench.core.method import methods
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.zoo.held_out import prompt

NAMES = ("code_attrgetter", "prose_kolam")
DRAFTERS = [card.name for card in methods("drafter") if card.name != "none"]
TOKENS = 64


@pytest.fixture(scope="module")
def draft():
    return load("zoo:draft")


@pytest.fixture(scope="module")
def plain(zoo_target) -> dict[str, list[int]]:
    """What the target says by itself."""
    settings = RunSettings(zoo_target, "x", "none", max_new_tokens=TOKENS)
    return {name: generate(settings.change(prompt=prompt(name).text)).new_tokens for name in NAMES}


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_greedy_text_is_the_targets(zoo_target, draft, plain, drafter):
    accepted = 0
    for name in NAMES:
        settings = RunSettings(zoo_target, prompt(name).text, drafter, max_new_tokens=TOKENS)
        trace = generate(settings.change(draft_model=draft))
        assert trace.new_tokens == plain[name], name
        accepted += sum(done.accepted for done in trace.rounds)
    assert accepted, "nothing was ever accepted, so nothing was put to the test"
