"""Heads: learning something, stopping, going on where it stopped, and being refused elsewhere."""

import json

import numpy as np
import pytest
import torch

from workbench.core.errors import Mismatch, ModelError
from workbench.models.attachments import EMBEDDED, load_attachment, save_attachment
from workbench.testing.tiny_network import tiny_network
from workbench.training.eagle import EagleTask
from workbench.training.features import write_features
from workbench.training.head_trainer import HeadSettings, head_card, train_head
from workbench.training.hydra import HydraTask
from workbench.training.kangaroo import KangarooTask
from workbench.training.medusa import MedusaTask
from workbench.training.outputs import OutputSettings, cuts, write_outputs

TASKS = [MedusaTask(2), HydraTask(2), EagleTask(), KangarooTask(2)]
SETTINGS = HeadSettings(epochs=6, batch_rows=4, learning_rate=5e-3, save_steps=4)
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@pytest.fixture(scope="module")
def model():
    made = tiny_network(7, layers=4, seed=4)
    made.network.float()
    return made


@pytest.fixture(scope="module")
def features(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 7, 200).astype(np.uint16)]
    settings = OutputSettings(rows=12, row_tokens=24, prompt_tokens=6, batch_rows=6)
    rows = write_outputs(model.network, documents, folder, settings)
    return write_features(model, rows, ("final", "2"), folder / "states")


@each_task
def test_a_head_learns_and_its_card_says_from_what(task, model, features, tmp_path):
    batch = features.batch(range(len(features)))
    with torch.no_grad():
        torch.manual_seed(SETTINGS.seed)
        before = float(task.loss(model, task.build(model), batch))
    head, progress = train_head(task, model, features, SETTINGS, tmp_path)
    with torch.no_grad():
        after = float(task.loss(model, head, batch))
    assert after < before - 0.01
    assert progress.step == progress.steps == 18
    assert [point[0] for point in progress.curve] == sorted(point[0] for point in progress.curve)
    card = head_card(task, model, SETTINGS, progress, task.measure(model, head, features), head)
    assert card["target"] == model.fingerprint and card["name"] == task.name
    assert card["parameters"] == sum(p.numel() for p in head.parameters())
    json.dumps(card)


@each_task
def test_stopped_and_resumed_equals_uninterrupted(task, model, features, tmp_path):
    whole, _ = train_head(task, model, features, SETTINGS, tmp_path / "whole")
    seen = []

    def stopped() -> bool:
        seen.append(1)
        return len(seen) == 7

    parts = tmp_path / "parts"
    half, progress = train_head(task, model, features, SETTINGS, parts, stopped=stopped)
    assert progress.step == 7, "a stop takes effect after the step that is under way"
    rest, progress = train_head(task, model, features, SETTINGS, parts)
    assert progress.step == 18
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, rest.state_dict()[name], atol=1e-6), name
    changed = [k for k, v in half.state_dict().items() if not torch.equal(v, whole.state_dict()[k])]
    assert changed


class OneStep(EagleTask):
    """EAGLE-1's own objective: the head never sees its own features."""

    unrolled_weight = 0.0


def test_a_second_step_is_learnt_only_where_it_is_trained_for(tmp_path):
    """What a draft keeps from its first step to its second: much with unrolling, less without."""
    model = tiny_network(7, layers=4, seed=4, std=0.6)
    model.network.float()
    documents = [np.random.default_rng(1).integers(0, 7, 200).astype(np.uint16)]
    settings = OutputSettings(rows=32, row_tokens=32, prompt_tokens=6, batch_rows=8)
    rows = write_outputs(model.network, documents, tmp_path, settings)
    features = write_features(model, rows, ("final",), tmp_path / "states")
    long, fallen = HeadSettings(epochs=40, batch_rows=8, learning_rate=5e-3, save_steps=1000), {}
    for task in (EagleTask(), OneStep()):
        folder = tmp_path / type(task).__name__
        head, _ = train_head(task, model, features, long, folder)
        first, second = task.measure(model, head, features)["overlap"]
        fallen[type(task)] = first - second
    assert fallen[OneStep] > 0.05, "the first step alone does not carry the second"
    assert fallen[EagleTask] < fallen[OneStep] / 2, fallen


def test_checkpoints_hold_no_pickle(model, features, tmp_path):
    train_head(MedusaTask(2), model, features, SETTINGS, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert {path.suffix for path in files} <= {".safetensors", ".json"}, files


def test_the_target_stays_as_it_is(model, features, tmp_path):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    train_head(HydraTask(2), model, features, SETTINGS, tmp_path)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_outputs_go_on_where_they_stopped(model, tmp_path):
    documents = [np.arange(60, dtype=np.uint16) % 7]
    settings = OutputSettings(
        rows=8, row_tokens=16, prompt_tokens=4, batch_rows=4, temperatures=(0.8,)
    )
    whole = write_outputs(model.network, documents, tmp_path / "a", settings)
    write_outputs(model.network, documents, tmp_path / "b", settings)
    (tmp_path / "b" / "batch-0001.npy").unlink()
    again = write_outputs(model.network, documents, tmp_path / "b", settings)
    assert np.array_equal(whole, again)
    assert whole.shape == (8, 16) and whole.max() < 7


def test_greedy_rows_are_the_targets_own(model, tmp_path):
    settings = OutputSettings(
        rows=4, row_tokens=12, prompt_tokens=4, batch_rows=4, temperatures=(0.0,), plain_ratio=0.0
    )
    rows = write_outputs(model.network, [np.arange(50, dtype=np.uint16) % 7], tmp_path, settings)
    for row in rows.tolist():
        for place in range(4, 12):
            assert row[place] == int(model.laws_along(row[:place])[-1].argmax())


def test_cuts_never_cross_documents():
    documents = [np.full(9, n, dtype=np.uint16) for n in range(5)]
    found = cuts(documents, 50, 6, np.random.default_rng(0))
    assert (found == found[:, :1]).all() and len(np.unique(found)) == 5


def test_a_head_of_another_target_is_refused(model, tmp_path):
    head = MedusaTask(2).build(model)
    card = {"name": "medusa", "target": model.fingerprint}
    save_attachment(tmp_path, head, card)
    assert load_attachment(str(tmp_path), "medusa", model).trained
    other = tiny_network(7, layers=4, seed=5)
    with pytest.raises(Mismatch, match=f"{model.fingerprint}.*{other.fingerprint}"):
        load_attachment(str(tmp_path), "medusa", other)
    with pytest.raises(Mismatch, match="heads='untrained'"):
        load_attachment("zoo", "medusa", other)
    with pytest.raises(ModelError, match="not that of a hydra head"):
        load_attachment(str(tmp_path), "hydra", model)
    with pytest.raises(ModelError, match="zoo train medusa"):
        load_attachment(str(tmp_path / "nowhere"), "medusa", model)
    (tmp_path / "head.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match="damaged"):
        load_attachment(str(tmp_path), "medusa", model)


def test_the_embedded_heads_stay_small():
    size = sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file())
    assert size < 10.5e6
