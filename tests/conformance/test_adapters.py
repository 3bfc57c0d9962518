"""Every registered adapter, every setting of its knobs; and the suite itself, on what is wrong."""

from __future__ import annotations

import pytest

from workbench.core.errors import BadKnob
from workbench.core.method import methods
from workbench.testing import adapter_saboteurs as saboteurs
from workbench.testing.adapter_suite import AdapterSuite
from workbench.testing.checkpoints import tiny_network as family_network
from workbench.testing.tiny_network import RuledModel
from workbench.testing.variants import name_of, variants

CHECKS = [
    name for name in vars(AdapterSuite) if name.startswith("check_") and name != "check_saved"
]
EVERY = [variants(card) for card in methods("adapter")]
DEFAULTS = [made[0] for made in EVERY]
SETTINGS = [one for made in EVERY for one in made[1:]]


def small(method):
    """The same method with a rank that fits matrices of 8 x 16."""
    changes = {}
    for knob, most in (("r", 4), ("most", 6)):
        if getattr(method, knob, 0) > most:
            changes[knob] = most
    return type(method)(**{k.name: getattr(method, k.name) for k in method.card.knobs} | changes)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", DEFAULTS, ids=name_of)
def test_every_adapter(method, check):
    getattr(AdapterSuite(small(method)), check)()


@pytest.mark.parametrize("method", DEFAULTS, ids=name_of)
def test_saved_and_loaded_again(method, tmp_path):
    AdapterSuite(small(method)).check_saved(tmp_path / "adapter")


@pytest.mark.parametrize("method", SETTINGS, ids=name_of)
def test_every_setting(method):
    try:
        method = small(method)
    except BadKnob:  # two knobs that contradict each other once the rank is small
        return
    for check in ("check_zero_init", "check_disabled", "check_parameter_count", "check_removal"):
        getattr(AdapterSuite(method), check)()


@pytest.mark.parametrize("family", ["mistral", "qwen3", "gemma2", "olmo2", "gpt_neox", "qwen3_moe"])
@pytest.mark.parametrize("method", DEFAULTS, ids=name_of)
def test_other_families(method, family):
    where = {"targets": "attention", "feedforward": False}
    method = type(method)(**{k: v for k, v in where.items() if hasattr(method, k)})
    for check in ("check_zero_init", "check_removal", "check_disabled", "check_parameter_count"):
        network = family_network(family, vocab_size=16).requires_grad_(False)
        getattr(AdapterSuite(method, RuledModel(family, network, None)), check)()


@pytest.mark.parametrize(("wrong", "check"), saboteurs.WRONG_METHODS)
def test_a_wrong_method_is_caught(wrong, check):
    getattr(AdapterSuite(saboteurs.Honest()), check)()
    with pytest.raises(AssertionError):
        getattr(AdapterSuite(wrong()), check)()


@pytest.mark.parametrize(("wrong", "check"), saboteurs.WRONG_HANDLING)
def test_wrong_handling_is_caught(wrong, check):
    with pytest.raises(AssertionError):
        getattr(AdapterSuite(saboteurs.Honest(), adapters=wrong), check)()
