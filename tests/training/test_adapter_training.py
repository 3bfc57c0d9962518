"""Adapters trained: what moves and what does not, stop and resume, a way back, the draft after."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.core.errors import BadInput, ModelError
from workbench.core.method import make_method
from workbench.engine.dials import held_out
from workbench.models.adapting import Adapters
from workbench.models.load import load
from workbench.training.adapter import AdapterSettings, train_adapter
from workbench.training.realign import RealignSettings, realign
from workbench.training.texts import read_texts

QUICK = AdapterSettings(steps=8, batch_rows=2, measure_steps=4, measure_rows=4, save_steps=100)


@pytest.fixture(scope="module")
def folder(text_folder):
    return text_folder(6, 30)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load(str(checkpoint("llama", max_position_embeddings=512)))


@pytest.fixture(scope="module")
def texts(model, folder):
    return read_texts(str(folder), model, row_tokens=48)


@pytest.fixture
def adapters(model):
    made = Adapters(model)
    yield made
    made.detach()


def put_on(adapters, name="lora", **knobs):
    method = make_method("adapter", name, **knobs)
    adapters.attach(method.config(adapters.shapes), "x")
    return method


def test_training_lowers_the_held_out_loss_and_leaves_the_base(adapters, texts, model, tmp_path):
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    method = put_on(adapters, r=4)
    start = adapters.state("x")
    progress = train_adapter(adapters, "x", method, texts, QUICK, tmp_path, draft=model)
    assert [m.step for m in progress.measured] == [0, 4, 8]
    assert progress.measured[-1].loss_nats < progress.measured[0].loss_nats - 0.1
    assert progress.measured[0].acceptance_ratio is not None and progress.note == ""
    assert [step for step, _ in progress.curve] == list(range(1, 9))
    assert any(not torch.equal(v, start[k]) for k, v in adapters.state("x").items())
    assert not model.network.training
    adapters.detach()
    after = model.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("lora", {"r": 4, "dropout": 0.1}),
        ("mola", {"r": 2}),
        ("increlora", {"warmup": 1, "interval": 2, "target_rank": 2.0, "most": 4}),
    ],
)
def test_stopped_and_resumed_it_is_the_same_training(adapters, texts, tmp_path, name, knobs):
    method = put_on(adapters, name, **knobs)
    whole = train_adapter(adapters, "x", method, texts, QUICK, tmp_path / "whole")
    wanted = adapters.state("x")
    adapters.detach()
    put_on(adapters, name, **knobs)
    seen = []
    part = train_adapter(
        adapters, "x", method, texts, QUICK, tmp_path / "part", None, seen.append,
        lambda: len(seen) == 5,
    )  # fmt: skip
    assert part.step == 5
    assert not [p.name for p in (tmp_path / "part").rglob("*") if p.suffix in (".pt", ".pth")]
    adapters.detach()
    put_on(adapters, name, **knobs)
    again = train_adapter(adapters, "x", method, texts, QUICK, tmp_path / "part")
    assert again.step == 8
    assert [y for _, y in again.curve] == pytest.approx([y for _, y in whole.curve], abs=1e-5)
    for key, value in adapters.state("x").items():
        assert torch.allclose(value, wanted[key], atol=1e-5), key


def test_a_folder_of_another_training_is_refused(adapters, texts, tmp_path):
    method = put_on(adapters, r=4)
    train_adapter(adapters, "x", method, texts, QUICK, tmp_path)
    adapters.detach()
    method = put_on(adapters, r=2)
    longer = AdapterSettings(steps=12, batch_rows=2)
    with pytest.raises(ModelError, match="training of another adapter"):
        train_adapter(adapters, "x", method, texts, longer, tmp_path)


def test_a_training_that_diverges_is_taken_back(adapters, texts, tmp_path):
    method = put_on(adapters, r=4, modules="lm_head")
    start = adapters.state("x")
    wild = AdapterSettings(steps=40, batch_rows=2, learning_rate=30.0, measure_steps=100)
    progress = train_adapter(adapters, "x", method, texts, wild, tmp_path)
    assert progress.step < 40 and "diverged" in progress.note and "smaller" in progress.note
    assert all(torch.equal(v, start[k]) for k, v in adapters.state("x").items())
    loss = held_out(adapters.model, texts.held_out)[0]
    assert math.isfinite(loss)


def test_increlora_grows_while_it_trains(adapters, texts, tmp_path):
    knobs = {"warmup": 1, "interval": 2, "target_rank": 2.0, "top": 2, "most": 4}
    method = put_on(adapters, "increlora", **knobs)
    progress = train_adapter(adapters, "x", method, texts, QUICK, tmp_path)
    log = progress.report["ranks"]
    assert [step for step, _ in log] == [0, 2, 4, 6]
    totals = [sum(ranks) for _, ranks in log]
    assert totals[0] == 6 and totals == sorted(totals) and 12 <= totals[-1] <= 14
    assert sum(adapters.config("x").rank_pattern.values()) == totals[-1]


def test_text_that_teaches_nothing_is_refused(model, tmp_path):
    with pytest.raises(BadInput, match="Did you mean 'asyncio'"):
        read_texts("asynci", model)
    with pytest.raises(BadInput, match="holds no text"):
        read_texts(str(tmp_path), model)
    (tmp_path / "one.txt").write_text("a single line, however long it may be " * 40)
    with pytest.raises(BadInput, match="holds 1 line of text"):
        read_texts(str(tmp_path), model)
    (tmp_path / "one.txt").write_text("a\nb\n")
    with pytest.raises(BadInput, match="tokens are too few"):
        read_texts(str(tmp_path), model)


def test_what_is_measured_on_is_never_learnt_from(model, folder, tmp_path):
    texts = read_texts(str(folder), model, row_tokens=48)
    learnt = {tuple(row.tolist()) for row in texts.train}
    assert len(texts.held_out) >= 1
    assert not learnt & {tuple(row.tolist()) for row in texts.held_out}
    single = tmp_path / "single"
    single.mkdir()
    (single / "a.txt").write_text("\n".join(f"line {n} {n * n}" for n in range(90)))
    one = read_texts(str(single), model, row_tokens=32)
    assert len(one.held_out) >= 1 and len(one.train) > len(one.held_out)


def test_the_realigned_draft_is_accepted_again(adapters, texts, model):
    """The draft is a copy of the base: accepted always, until the adapter moves the target."""
    draft, rows = model.clone(), texts.held_out[:4]
    weights = {key: value.clone() for key, value in draft.network.state_dict().items()}
    assert held_out(model, rows, draft)[2] == pytest.approx(1.0, abs=1e-5)
    put_on(adapters, r=4)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in adapters.parameters("x"):
            weight.add_(0.15 * torch.randn(weight.shape, generator=generator))
    plan = RealignSettings(steps=12, batch_rows=2, measure_steps=6, measure_rows=4, temperature=1.0)
    done = realign(model, draft, texts, plan)
    assert done.before < 0.8 and done.after > done.before + 0.1, done.curve
    assert [step for step, _ in done.curve] == [0, 6, 12]
    assert done.after == pytest.approx(held_out(model, rows, done.draft)[2], abs=1e-6)
    own = draft.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in weights.items())
