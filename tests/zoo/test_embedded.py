"""The committed weights are what their cards say."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from workbench.models.corpus import read_corpus
from workbench.models.load import load
from workbench.zoo.corpus import TokenisedCorpus, tokenise
from workbench.zoo.evaluate import bigram_loss, held_out_losses
from workbench.zoo.publish import WEIGHTS, cards
from workbench.zoo.tokenizer import VOCABULARY

NAMES = ("target", "draft", "moe")


@pytest.fixture(scope="module")
def sample() -> TokenisedCorpus:
    """A slice of the held-out files of *this* Python, and some of what was trained on."""
    files = read_corpus()
    held_out = [f for f in files if f.part == "held_out"][:12]
    seen = [f for f in files if f.part == "train"][:200]
    corpus = tokenise(held_out + seen, load("zoo:target").tokenizer)
    corpus.parts["held_out"] = [np.concatenate(corpus.parts["held_out"])[: 40 * 256 + 1]]
    return corpus


@pytest.mark.parametrize("name", NAMES)
def test_card_is_complete_and_weights_match_it(name):
    card = next(c for c in cards() if c["name"] == name)
    network = AutoModelForCausalLM.from_pretrained(WEIGHTS / name)
    assert sum(p.numel() for p in network.parameters()) == card["parameters"]
    for key in ("tokens_seen", "held_out_loss", "loss_curve", "corpus_bytes", "seed", "versions"):
        assert card[key], key
    assert math.isclose(card["exit_losses"][-1], card["held_out_loss"])


@pytest.mark.parametrize("name", NAMES)
def test_held_out_loss_is_near_the_card(name, sample):
    """On a sample of the held-out files, so only near: other files, other Python version."""
    card = next(c for c in cards() if c["name"] == name)
    measured = held_out_losses(load(f"zoo:{name}").network, sample)["held_out_loss"]
    assert abs(measured - card["held_out_loss"]) < 0.7
    assert measured < bigram_loss(sample, VOCABULARY)


def test_target_beats_draft_beats_bigram():
    target, draft = (next(c for c in cards() if c["name"] == name) for name in NAMES[:2])
    assert target["held_out_loss"] < draft["held_out_loss"] < target["bigram_loss"]


def test_exits_of_the_target_improve_with_depth():
    card = next(c for c in cards() if c["name"] == "target")
    losses = card["exit_losses"]
    assert all(a > b for a, b in pairwise(losses))
    assert losses[3] < card["bigram_loss"] - 1, "half the layers must be a usable draft"


def test_one_missing_middle_layer_costs_little(sample):
    """Layer dropout while training is what makes layer skipping worth trying."""
    from workbench.zoo.train import exit_hiddens, token_loss

    network = load("zoo:target").network
    stream = torch.from_numpy(sample.parts["held_out"][0].astype(np.int64))
    rows = stream[: 16 * 256 + 1].unfold(0, 257, 256)
    with torch.inference_mode():
        whole = exit_hiddens(network, rows[:, :-1], set(), {7})[7]
        base = token_loss(network, whole, rows[:, 1:]).item()
        for skipped in range(2, 7):
            hidden = exit_hiddens(network, rows[:, :-1], {skipped}, {7})[7]
            assert token_loss(network, hidden, rows[:, 1:]).item() - base < 0.6


def test_the_mixture_has_no_idle_expert(sample):
    """An even load is 2 / 8; below a tenth of that an expert would be dead weight."""
    from workbench.models.routers import record_routing

    model = load("zoo:moe")
    layers = record_routing(model, sample.parts["held_out"][0][:1000].tolist()).layers.values()
    assert len(layers) == 6 and all(layer.logits.shape[1] == 8 for layer in layers)
    assert min(float(layer.load.min()) for layer in layers) > 0.025
    assert max(float(layer.load.max()) for layer in layers) < 0.75


def test_the_zoo_stays_small_and_holds_no_pickle():
    files = [f for f in WEIGHTS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 44e6
    assert {f.suffix for f in files} <= {".json", ".safetensors"}
