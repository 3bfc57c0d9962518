"""Prefixes trained: the loss falls, the base stays, and a stopped training goes on with its MLP."""

from __future__ import annotations

import pytest
import torch

from workbench.core.method import make_method
from workbench.models.adapting import Adapters
from workbench.models.load import load
from workbench.training.adapter import AdapterSettings, train_adapter
from workbench.training.texts import read_texts

QUICK = AdapterSettings(
    steps=8, batch_rows=2, learning_rate=3e-2, measure_steps=4, measure_rows=4, save_steps=100
)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load(str(checkpoint("llama", max_position_embeddings=512)))


@pytest.fixture(scope="module")
def texts(model, text_folder):
    return read_texts(str(text_folder(6, 30)), model, row_tokens=48)


@pytest.fixture
def adapters(model):
    made = Adapters(model)
    yield made
    made.detach()


def put_on(adapters, **knobs):
    method = make_method("adapter", "prefix", tokens=6, **knobs)
    adapters.attach(method.config(adapters.shapes), "x")
    return method


def test_training_lowers_the_held_out_loss_and_leaves_the_base(adapters, texts, model, tmp_path):
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    method = put_on(adapters)
    start = adapters.state("x")["prompt_embeddings"]
    progress = train_adapter(adapters, "x", method, texts, QUICK, tmp_path, draft=model)
    losses = [m.loss_nats for m in progress.measured]
    assert losses[-1] < losses[0] - 0.02 and progress.note == ""
    assert not torch.equal(adapters.state("x")["prompt_embeddings"], start)
    adapters.detach()
    after = model.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("project", [False, True])
def test_stopped_and_resumed_it_is_the_same_training(adapters, texts, tmp_path, project):
    method = put_on(adapters, project=project)
    train_adapter(adapters, "x", method, texts, QUICK, tmp_path / "whole")
    wanted = adapters.state("x")
    assert len(wanted) == (5 if project else 1)
    adapters.detach()
    put_on(adapters, project=project)
    seen = []
    part = train_adapter(
        adapters, "x", method, texts, QUICK, tmp_path / "part", None, seen.append,
        lambda: len(seen) == 5,
    )  # fmt: skip
    assert part.step == 5
    adapters.detach()
    put_on(adapters, project=project)
    assert train_adapter(adapters, "x", method, texts, QUICK, tmp_path / "part").step == 8
    for key, value in adapters.state("x").items():
        assert torch.allclose(value, wanted[key], atol=1e-5), key


def test_a_start_from_words_is_what_the_model_makes_of_words(adapters):
    """In the first layer values hang on the token alone: each is that of some word."""
    network = adapters.model.network
    layer = network.model.layers[0]
    with torch.no_grad():
        every = layer.self_attn.v_proj(layer.input_layernorm(network.model.embed_tokens.weight))
    for words in (True, False):
        put_on(adapters, words=words)
        values = adapters.virtual_keys("x").layers[0][1][0].transpose(0, 1).flatten(1)
        nearest = (values[:, None] - every).abs().amax(-1).min(1)
        assert bool((nearest.values < 1e-4).all()) == words
        assert not words or len(set(nearest.indices.tolist())) > 1
        adapters.detach()
