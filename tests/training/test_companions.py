"""What a method adds to the loss is learnt from, and what it leaves behind is frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from workbench.core.errors import ModelError
from workbench.core.method import make_method
from workbench.models.adapting import Adapters
from workbench.models.load import load
from workbench.models.tuners.growing import growing_layers
from workbench.training.adapter import AdapterSettings, train_adapter
from workbench.training.texts import read_texts

SHORT = AdapterSettings(steps=2, batch_rows=2, measure_steps=9, measure_rows=2, save_steps=99)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load(str(checkpoint("llama", max_position_embeddings=512)))


@pytest.fixture(scope="module")
def texts(model, text_folder):
    return read_texts(str(text_folder(6, 30)), model, row_tokens=48)


@pytest.mark.parametrize(
    ("name", "knob", "taught", "moves", "knobs"),
    [
        ("mola", "balance", "mola_router", "mola_B", {"r": 2}),
        ("increlora", "orth", "growing_A", "growing_E", {"advance": False, "most": 4}),
    ],
)
def test_what_is_added_to_the_loss_is_learnt_from(
    model, texts, tmp_path, name, knob, taught, moves, knobs
):
    """The first step has rate 0, in the second B (or E) is still 0: only the addition teaches."""
    adapters, moved = Adapters(model), {}
    for weight in (0.0, 0.1):
        method = make_method("adapter", name, **{knob: weight, **knobs})
        adapters.attach(method.config(adapters.shapes), "x")
        start = adapters.state("x")
        train_adapter(adapters, "x", method, texts, SHORT, tmp_path / str(weight))
        for part in (taught, moves):  # of what grew, only the first rank is left
            rows = {k: v for k, v in adapters.state("x").items() if part in k}
            moved[part, weight] = [not torch.equal(v, start[k][: len(v)]) for k, v in rows.items()]
        assert not any(weight.requires_grad for weight in model.network.parameters())
        ids = texts.held_out[:1, :12]
        plain = model.network(input_ids=ids, use_cache=False).logits[0]
        assert torch.allclose(model.session().forward(ids[0].tolist()).logits, plain, atol=1e-4)
        adapters.detach()
    assert all(moved[moves, 0.0]) and all(moved[moves, 0.1])
    assert not any(moved[taught, 0.0]) and any(moved[taught, 0.1])


def test_an_interrupt_leaves_a_grown_adapter_whole_and_nobody_listening(model, texts, tmp_path):
    adapters = Adapters(model)
    method = make_method("adapter", "increlora", warmup=1, interval=1, top=9, most=6)
    adapters.attach(method.config(adapters.shapes), "x")

    def interrupt(progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(
            adapters, "x", method, texts, replace(SHORT, steps=9), tmp_path / "run", None, interrupt
        )
    layers = growing_layers(model.network, "x")
    live = {layer.path: layer.live["x"] for layer in layers}
    assert max(live.values()) > 1, "nothing grew, so nothing is shown"
    assert adapters.config("x").rank_pattern == live
    assert not any(layer._forward_hooks for layer in layers)
    assert not any(weight.requires_grad for weight in model.network.parameters())
    ids = texts.held_out[:1, :12]
    with torch.no_grad():
        grown = model.network(input_ids=ids, use_cache=False).logits
        adapters.save("x", tmp_path / "kept")
        adapters.detach()
        adapters.load(tmp_path / "kept", "x")
        assert torch.allclose(model.network(input_ids=ids, use_cache=False).logits, grown)
    adapters.detach()


def test_a_training_that_never_began_leaves_its_adapter_as_it_was(model, texts, tmp_path):
    adapters, method = Adapters(model), make_method("adapter", "increlora", most=6)
    adapters.attach(method.config(adapters.shapes), "x")
    start = adapters.state("x")
    train_adapter(adapters, "x", method, texts, SHORT, tmp_path)
    adapters.detach()
    other = make_method("adapter", "increlora", most=4)
    adapters.attach(other.config(adapters.shapes), "x")
    before = adapters.state("x")
    with pytest.raises(ModelError, match="another adapter"):
        train_adapter(adapters, "x", other, texts, SHORT, tmp_path)
    after = adapters.state("x")
    assert start.keys() == before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not any(layer._forward_hooks for layer in growing_layers(model.network, "x"))
    adapters.detach()
