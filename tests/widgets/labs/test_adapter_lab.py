"""The adapter lab's controller: train, weigh, combine, open, save; undo and reset. No browser."""

from __future__ import annotations

import threading

import pytest
import torch

from widgets.labs.adapters.controller import AdapterLab
from widgets.labs.board_lab import BoardLab
from workbench.models.load import load

IDS = torch.arange(40, 72)[None]


@pytest.fixture(scope="module")
def folder(text_folder):
    return text_folder(5, 60)


@pytest.fixture(scope="module")
def models(checkpoint):
    target = load(str(checkpoint("llama", max_position_embeddings=512)))
    changes = {"seed": 1, "num_hidden_layers": 1, "max_position_embeddings": 512}
    return target, load(str(checkpoint("llama", **changes)))


def settle(lab) -> str:
    assert lab.worker.wait(120)
    return lab._error


def logits(lab) -> torch.Tensor:
    with torch.inference_mode():
        return lab.model.network(input_ids=IDS, use_cache=False).logits


@pytest.fixture
def lab(models, folder):
    made = AdapterLab(*models, measure_steps=2)
    made.texts = lambda: ["a table: 12\n" * 30, "row 1 2 of a table: 2\n" * 20]
    made.warm()
    assert not settle(made)
    short = {"data": "folder", "folder": str(folder), "steps": 4, "rows": 2, "adapter.lora.r": 4}
    assert all(made.change(key, value) for key, value in short.items())
    yield made
    made.close()


@pytest.fixture
def trained(lab):
    lab.train()
    assert not settle(lab)
    return lab


def test_a_trained_adapter_moves_the_dials_and_comes_off_bit_for_bit(lab):
    base = logits(lab)
    assert lab.before is not None
    lab.train()
    assert not settle(lab)
    assert lab.settings["first"] == "lora_1" and lab.settings["show"] == "training"
    assert lab.now.loss_nats != lab.before.loss_nats
    full = logits(lab)
    assert not torch.equal(full, base)
    lab.change("on", False)
    assert not settle(lab) and torch.equal(logits(lab), base)
    lab.undo()
    assert not settle(lab) and torch.equal(logits(lab), full)
    lab.reset()
    assert not settle(lab) and torch.equal(logits(lab), base)
    assert lab.now.loss_nats == lab.before.loss_nats
    lab.undo()
    assert not settle(lab) and torch.equal(logits(lab), full)


def test_strength_and_a_layers_factor(trained):
    full = logits(trained)
    trained.change("strength", 0.0)
    assert not settle(trained) and trained.now.loss_nats == trained.before.loss_nats
    trained.change("strength", 1.0)
    trained.change("layer", 2)
    trained.change("layer_factor", 0.5)
    assert not settle(trained) and not torch.equal(logits(trained), full)
    assert trained.settings["layer_factor"] == 0.5
    trained.change("layer", 1)
    assert trained.settings["layer_factor"] == 1.0, "each layer has its own"
    bars = trained.contents()["norms"]["data"][0]
    norms = trained.entry("first").norms
    assert bars["y"] == pytest.approx([norms[0], norms[1], 0.5 * norms[2]])
    trained.handle("norms", {"kind": "point", "customdata": 2})
    assert trained.settings["layer"] == 2 and trained.settings["layer_factor"] == 0.5
    assert not trained.change("strength", 2.0) and "1.5" in trained._error


def test_a_stopped_training_goes_on_where_it_was(lab):
    lab.change("steps", 200)
    begun = threading.Event()
    lab.listen(lambda: begun.set() if lab.progress and lab.progress.step >= 3 else None)
    lab.train()
    assert begun.wait(60)
    lab.pause()
    assert lab.status.state == "paused"
    lab.train()
    lab.stop()
    assert not settle(lab)
    assert "Train goes on from there" in lab._note and lab.settings["first"] == "lora_1"
    done = lab.shelf["lora_1"].progress.step
    assert 3 <= done < 200
    further = threading.Event()
    lab.listen(lambda: further.set() if lab.progress.step > done else None)
    lab.train()
    assert further.wait(60)
    lab.stop()
    assert not settle(lab)
    after = lab.shelf["lora_2"].progress
    assert after.step > done and [s for s, _ in after.curve] == list(range(1, after.step + 1))


def test_the_draft_is_realigned_and_three_pairings_are_swept(trained):
    trained.realign()
    assert not settle(trained)
    assert trained.realigned.after > trained.realigned.before
    assert trained.settings["draft"] == "re-aligned" and "re-aligned draft" in trained._note
    assert trained.draft is trained.realigned.draft
    trained.sweep()
    assert not settle(trained)
    assert trained.settings["show"] == "strength"
    plain, both, neither = (dict(points) for points in trained.sweeps.values())
    assert plain[0.0] == neither[0.0] == neither[1.5] and plain[1.0] != neither[1.0]
    assert both[1.0] == pytest.approx(trained.realigned.after, abs=0.02)
    lines = trained.contents()["upper"]["data"]
    assert [line["name"] for line in lines[:3]] == list(trained.sweeps)
    trained.undo()
    assert not settle(trained)


def test_two_adapters_at_once_and_combined(trained):
    trained.change("method", "ia3")
    trained.train()
    assert not settle(trained)
    trained.change("second", "lora_1")
    assert not settle(trained) and trained.adapters.names == ("ia3_1", "lora_1")
    both = logits(trained)
    trained.change("second_strength", 0.0)
    assert not settle(trained) and not torch.equal(logits(trained), both)
    trained.change("second_strength", 1.0)
    trained.change("operation", "merge")
    trained.combine()
    assert "no LoRA" in settle(trained)
    trained.change("operation", "breadcrumbs")
    trained.combine()
    assert not settle(trained)
    assert trained.settings["first"] == "breadcrumbs_1"
    assert "overlap" in trained.contents()["facts"]
    trained.change("second", "none")
    trained.change("operation", "compeft")
    trained.combine()
    assert not settle(trained) and trained.entry("first").facts["bytes"] > 0


def test_pictures_of_a_mixture_and_of_growing_ranks(lab):
    for key, value in (("method", "mola"), ("adapter.mola.r", 2), ("below", "routers")):
        assert lab.change(key, value)
    lab.train()
    assert not settle(lab)
    shares = lab.entry("first").loads
    assert set(shares) == {0, 1, 2} and sum(shares[2]) == pytest.approx(1)
    assert "Share of tokens" in str(lab.contents()["lower"]["layout"])
    quick = {"warmup": 0, "interval": 1, "target_rank": 2.0}
    lab.change("method", "increlora")
    assert all(lab.change(f"adapter.increlora.{key}", value) for key, value in quick.items())
    lab.change("below", "ranks")
    lab.train()
    assert not settle(lab)
    heat = lab.contents()["lower"]["data"][0]
    assert len(heat["y"]) == 6 and len(heat["x"]) > 1


def test_any_of_pefts_types_has_its_form(lab):
    lab.change("method", "peft")
    fields = {field.key for section in lab.sections for field in section.fields}
    assert {"peft_type", "peft.LOHA.r", "peft.LOHA.alpha"} <= fields
    lab.change("peft.LOHA.r", 4)
    lab.train()
    assert not settle(lab) and lab.entry("first").kind == "LOHA"
    lab.change("peft_targets", "q_prj")
    lab.train()
    assert "Did you mean 'q_proj'" in settle(lab)


def test_opened_and_saved(trained, tmp_path):
    full = logits(trained)
    trained.change("path", str(tmp_path / "mine"))
    trained.save()
    assert not settle(trained) and "is saved in" in trained._note
    trained.change("first", "none")
    trained.open_folder()
    assert not settle(trained)
    assert trained.settings["first"] == "mine_1" and torch.equal(logits(trained), full)
    trained.change("path", str(tmp_path))
    trained.open_folder()
    assert "adapter_config.json" in settle(trained)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"adapter.lora.r": 200}, "no update of it has a rank"),
        ({"adapter.lora.modules": "qproj"}, "Did you mean 'q_proj'"),
        ({"folder": "/nowhere"}, "no family and no folder"),
    ],
)
def test_what_cannot_be_trained_is_a_message_and_changes_nothing(lab, changes, says):
    base = logits(lab)
    for key, value in changes.items():
        assert lab.change(key, value)
    lab.train()
    assert says in settle(lab) and not lab.shelf
    assert torch.equal(logits(lab), base)
    assert 'role="alert"' in lab.contents()["error"]


def test_a_training_that_diverges_says_so(lab):
    lab.change("rate", 1.0)
    lab.change("steps", 60)
    lab.change("adapter.lora.modules", "lm_head")
    lab.change("adapter.lora.alpha", 512.0)
    lab.train()
    assert not settle(lab)
    assert "diverged" in lab._note and "is that of step" in lab.contents()["facts"]
    assert lab.shelf["lora_1"].progress.step < 60


@pytest.mark.parametrize(("text", "says"), [("", "no text"), ("x = 1\n", "hold")])
def test_too_little_text_is_a_message_and_the_lab_goes_on(lab, tmp_path, folder, text, says):
    (tmp_path / "only.txt").write_text(text)
    assert lab.change("folder", str(tmp_path))
    lab.train()
    error = settle(lab)
    assert says in error and str(tmp_path) in error and not lab.shelf
    assert lab.change("folder", str(folder))
    lab.train()
    assert not settle(lab) and "lora_1" in lab.shelf


def test_an_adapter_of_another_base_is_refused_and_nothing_is_put_on(
    trained, checkpoint, tmp_path, folder
):
    wide = checkpoint("llama", hidden_size=32, max_position_embeddings=512)
    other = AdapterLab(str(wide), "", measure_steps=2)
    other.texts = trained.texts
    short = {"data": "folder", "folder": str(folder), "steps": 1, "rows": 1, "path": str(tmp_path)}
    assert all(other.change(key, value) for key, value in short.items())
    other.train()
    assert not settle(other)
    other.save()
    assert not settle(other)
    other.close()
    full = logits(trained)
    trained.change("path", str(tmp_path))
    trained.open_folder()
    error = settle(trained)
    assert "another base" in error and 'role="alert"' in trained.contents()["error"]
    trained.change("strength", 0.5)
    trained.change("strength", 1.0)
    assert not settle(trained) and torch.equal(logits(trained), full)
    assert list(trained.shelf) == ["lora_1"]


def test_a_mixture_says_that_its_experts_are_not_adapted(loaded, folder):
    made = AdapterLab(loaded("mixtral", max_position_embeddings=512), "", measure_steps=2)
    made.texts = lambda: ["a table: 12\n" * 30]
    short = {"data": "folder", "folder": str(folder), "steps": 2, "rows": 1}
    assert all(made.change(key, value) for key, value in short.items())
    made.change("adapter.lora.targets", "all linear")
    made.train()
    assert not settle(made) and made.now.loss_nats != made.before.loss_nats
    assert "not adapted" in made.contents()["facts"]
    made.change("adapter.lora.targets", "mlp")
    made.train()
    assert "experts stored as one block are not adapted" in settle(made)
    made.close()


def test_it_opens_on_a_recorded_example_that_a_training_replaces(lab):
    shown = lab.contents()
    assert "recorded example: LoRA" in shown["facts"] and not lab.history.can_redo
    for cell in ("loss", "upper", "norms", "lower"):
        assert shown[cell]["data"] and "recorded example" in str(shown[cell]["layout"]), cell
    assert lab.change("show", "strength")
    assert len(lab.contents()["upper"]["data"]) == 3
    lab.train()
    assert not settle(lab)
    assert "recorded" not in str(lab.contents())
    values = lab.contents()["lower"]["data"][0]["y"]
    assert len(values) == 4, "a rank of four has four singular values, and the rest is rounding"


def test_a_sentence_goes_with_what_it_was_about(trained):
    trained.realign()
    assert not settle(trained) and "re-aligned draft" in trained.contents()["dials"]
    trained.reset()
    assert not settle(trained) and "re-aligned" not in trained.contents()["dials"]
    assert trained.now is trained.before


def test_verbs_that_need_an_adapter_wait_for_one(lab):
    assert {"train", "open_folder"} <= lab.verbs() and "sweep" not in lab.verbs()
    lab.sweep()
    assert "needs an adapter" in settle(lab)


def test_a_notebook_shows_widgets_and_a_page_without_a_kernel_shows_text(trained):
    shown = BoardLab(trained)
    bundle, _ = shown._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "lora_1" in bundle["text/html"] and "held-out loss" in bundle["text/html"]
