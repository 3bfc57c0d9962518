"""The recurrent router's head: trained alone, resumed to the bit, kept beside its mixture."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import Mismatch, ModelError
from workbench.models.attachments import EMBEDDED, load_attachment, save_attachment
from workbench.models.load import load
from workbench.moe.recurrent import Recurrent
from workbench.training.moe_finetune import MixtureSettings, finetune
from workbench.training.rmoe import train_arm, train_head

ROWS = torch.randint(0, 40, (24, 16), generator=torch.Generator().manual_seed(8))
SETTINGS = MixtureSettings(steps=6, batch_rows=4, learning_rate=1e-2, save_steps=2)
METHOD = Recurrent(width=8, heads="untrained")


@torch.inference_mode()
def logits(model, rows=ROWS[:2]) -> torch.Tensor:
    return model.network(input_ids=rows, use_cache=False).logits


def test_a_head_learns_alone_and_its_card_says_from_what(loaded, tmp_path):
    model = loaded("qwen3_moe")
    before = {name: w.clone() for name, w in model.network.state_dict().items()}
    tensors, card = train_head(model, METHOD, ROWS, ROWS, tmp_path, SETTINGS)
    assert card["held_out_loss"] < card["held_out_loss_without"]
    assert card["parameters"] == 3 * (8 * 64 + 4 * 8) + 6 * 64 + 6 * 8
    assert card["target"] == model.fingerprint and card["tokens_seen"] == 6 * 4 * 16
    for name, weight in model.network.state_dict().items():
        assert torch.equal(weight, before[name])
    arm = train_arm("recurrent", model, METHOD, ROWS, ROWS[:1], SETTINGS, head_only=True)
    arm.gates.remove()  # what is left is the mixture, to the bit
    assert torch.equal(logits(arm.model), logits(model))
    save_attachment(tmp_path / "head", tensors, card)
    plain = logits(model)
    with Recurrent(width=8, heads=str(tmp_path / "head")).attach(model) as gates:
        assert not torch.equal(logits(model), plain)
        assert torch.equal(gates.added()["2.up"], tensors["2.up"])
    assert torch.equal(logits(model), plain)
    with pytest.raises(ModelError, match="other layers or widths"):
        Recurrent(width=4, heads=str(tmp_path / "head")).attach(model)
    assert torch.equal(logits(model), plain)  # a failure leaves the mixture as it was
    with pytest.raises(Mismatch, match=model.fingerprint):
        Recurrent(width=8, heads=str(tmp_path / "head")).attach(loaded("mixtral"))


def test_stopping_and_going_on_is_the_same_training(loaded, tmp_path):
    model = loaded("qwen3_moe")
    whole, card = train_head(model, METHOD, ROWS, ROWS, tmp_path / "whole", SETTINGS)

    def stop(steps: int):
        seen: list[int] = []
        return {
            "listener": lambda done: seen.append(done.steps),
            "stopped": lambda: seen[-1:] == [steps - 1],
        }

    part, cut = train_head(model, METHOD, ROWS, ROWS, tmp_path / "cut", SETTINGS, **stop(3))
    assert "Stopped after 3 of 6" in cut["note"] and not torch.equal(part["2.up"], whole["2.up"])
    steps: list[int] = []
    resumed, again = train_head(
        model,
        METHOD,
        ROWS,
        ROWS,
        tmp_path / "cut",
        SETTINGS,
        listener=lambda done: steps.append(done.steps),
    )
    assert steps == [4, 5, 6]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert again["loss_curve"] == card["loss_curve"] and again["note"] == ""
    with pytest.raises(ModelError, match="other weights"):
        train_head(model, Recurrent(width=4), ROWS, ROWS, tmp_path / "cut", SETTINGS)


def test_a_whole_mixture_resumes_too(loaded, tmp_path):
    def run(folder, until: int):
        model, seen = loaded("qwen3_moe").clone(), []
        finetune(
            model,
            ROWS,
            None,
            MixtureSettings(steps=4, batch_rows=4, save_steps=2),
            folder=folder,
            listener=lambda done: seen.append(done.steps),
            stopped=lambda: seen[-1:] == [until - 1],
        )
        return logits(model)

    whole = run(tmp_path / "whole", 99)
    assert not torch.equal(run(tmp_path / "cut", 2), whole)
    assert torch.equal(run(tmp_path / "cut", 99), whole)


def test_the_embedded_head_is_taken_up_where_it_fits_and_nowhere_else(loaded):
    model = load("zoo:moe")
    head = load_attachment("zoo", "recurrent", model)
    ids = torch.tensor([model.encode("def get(self, key):\n    return self._data[key]\n")])
    plain = logits(model, ids)
    with Recurrent().attach(model) as gates:
        assert torch.equal(gates.added()["5.up"], head.tensors["5.up"])
        assert not torch.equal(logits(model, ids), plain)
    for other in (Recurrent(heads="untrained"), Recurrent(width=16)):
        with other.attach(model):
            assert torch.equal(logits(model, ids), plain)
    assert torch.equal(logits(model, ids), plain)
    tiny = loaded("qwen3_moe")
    before = logits(tiny)
    with Recurrent().attach(tiny):
        assert torch.equal(logits(tiny), before)
    assert head.card["held_out_loss"] < head.card["held_out_loss_without"]
    assert sum(path.stat().st_size for path in (EMBEDDED / "recurrent").iterdir()) < 200_000
