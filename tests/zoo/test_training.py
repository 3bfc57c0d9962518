"""The recipe learns, resumes exactly and publishes what plain transformers can load."""

import argparse
import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from workbench.core.errors import BadInput
from workbench.models.corpus import family_of, part_of, read_corpus
from workbench.zoo import command
from workbench.zoo.corpus import TokenisedCorpus, epoch_rows
from workbench.zoo.evaluate import bigram_loss, held_out_losses
from workbench.zoo.recipe import RECIPES
from workbench.zoo.train import BatchStream, TrainSettings, rate_factor, train

TINY = dataclasses.replace(
    RECIPES["target"],
    architecture={
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 48,
    },
    warmup_steps=2,
)


def settings(steps: int) -> TrainSettings:
    return TrainSettings(steps * 4 * 16, batch_rows=4, row_tokens=16, bf16=False)


@pytest.fixture(scope="module")
def corpus() -> TokenisedCorpus:
    """Texts in which token t is always followed by t+1: easy to learn, easy to check."""
    rng = np.random.default_rng(0)

    def document() -> np.ndarray:
        start = int(rng.integers(3, 100))
        return np.array([1, *range(start, start + 60), 2], dtype=np.uint16)

    parts = {name: [document() for _ in range(30)] for name in ("train", "held_out", "families")}
    return TokenisedCorpus(parts, 1000, 90)


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_stopping_and_resuming_gives_the_same_weights(corpus, tmp_path):
    whole, _ = train(TINY, corpus, settings(8), tmp_path / "whole")

    class Cut(Exception):
        pass

    def stop(line):
        if line["step"] == 5:
            raise Cut

    often = dataclasses.replace(settings(8), checkpoint_every_s=0.0)
    with pytest.raises(Cut):
        train(TINY, corpus, often, tmp_path / "cut", stop)
    lines = []
    resumed, progress = train(TINY, corpus, often, tmp_path / "cut", lines.append)
    assert lines[0]["step"] == 5, "the last whole checkpoint was after step 4"
    assert progress["step"] == 8
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)


def test_training_lowers_the_held_out_loss(corpus, tmp_path):
    _, start = train(TINY, corpus, settings(1), tmp_path / "one")
    model, _ = train(TINY, corpus, settings(60), tmp_path / "sixty")
    losses = held_out_losses(model, corpus)
    assert losses["held_out_loss"] < 6.0 < start["curve"][0][1]
    assert len(losses["exit_losses"]) == 3
    assert losses["exit_losses"][-1] == losses["held_out_loss"]


def test_bigram_loss_matches_a_count_by_hand():
    train_part = [np.array([0, 1, 0, 1, 0, 2], dtype=np.uint16)]
    corpus = TokenisedCorpus(
        {"train": train_part, "held_out": [np.array([0, 1], dtype=np.uint16)], "families": []}, 0, 2
    )
    unigram = (2 + 1) / (6 + 4)  # token 1, add-one over 4 tokens
    by_hand = -np.log((2 + 2 * unigram) / (3 + 2))  # 0 was followed by 1 twice, by 2 once
    assert bigram_loss(corpus, 4) == pytest.approx(by_hand, abs=1e-12)


def test_batches_depend_on_the_step_alone(corpus):
    first = BatchStream(corpus, settings(100), 5)
    seen = [first.batch(step) for step in range(60)]
    again = BatchStream(corpus, settings(100), 5)
    assert torch.equal(again.batch(41), seen[41])
    assert not torch.equal(seen[0], seen[41])


def test_rows_are_cut_from_the_documents(corpus):
    rows = epoch_rows(corpus.parts["train"], 16, np.random.default_rng(3), cap_tokens=40)
    assert rows.shape[1] == 17
    inside = (rows[:, :-1] > 2) & (rows[:, 1:] > 2)
    step = rows[:, 1:].astype(int) - rows[:, :-1]
    assert (step[inside] == 1).mean() > 0.95, "only a cut long file may break a run"


def test_rate_warms_up_and_ends_near_zero():
    rates = [rate_factor(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0
    assert rates[9] == 1.0 and rates[99] == pytest.approx(1 / 90)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_the_parts_of_the_library_are_disjoint_and_families_are_whole():
    files = read_corpus()
    parts = {part: {f.path for f in files if f.part == part} for part in ("train", "held_out")}
    assert parts["train"] and parts["held_out"] and not parts["train"] & parts["held_out"]
    for file in files:
        assert file.part == part_of(file.path)
        if "asyncio" in file.path.split("/"):
            assert file.part == "families"
    assert family_of("test/test_json/test_scanstring.py") == "json"
    assert family_of("jsonlike.py") is None


def test_command_trains_on_a_folder_and_publishes(tmp_path, monkeypatch, capsys):
    """The whole command on a small folder: tokenizer, state, checkpoint, card, plain reload."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = tmp_path / "source"
    source.mkdir()
    for number in range(120):
        (source / f"file_{number}.py").write_text(f"def f_{number}(x):\n    return x + {number}\n")
    monkeypatch.setitem(RECIPES, "draft", dataclasses.replace(TINY, name="draft"))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    out = tmp_path / "out"
    args = "train draft --tokens 256 --batch-rows 4 --row-tokens 16 --fp32 --no-compile".split()
    args += ["--device", "cpu", "--corpus", str(source), "--out", str(out)]
    args += ["--state", str(tmp_path / "state")]
    assert command.run(parser.parse_args(args)) == 0
    with pytest.raises(BadInput, match="one step"):
        command.run(parser.parse_args([*args, "--batch-rows", "4000"]))
    assert "held-out loss" in capsys.readouterr().out
    card = json.loads((out / "draft" / "card.json").read_text())
    assert card["tokens_seen"] == 256 and card["corpus_files"] == 120
    network = AutoModelForCausalLM.from_pretrained(out / "draft")
    assert sum(p.numel() for p in network.parameters()) == card["parameters"]
    tokenizer = AutoTokenizer.from_pretrained(out / "draft")
    text = "def f(x):\n\treturn 'é' # 漢"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_an_empty_corpus_is_refused_with_the_fix(tmp_path):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["train", "draft", "--corpus", str(tmp_path), "--out", str(tmp_path)])
    with pytest.raises(BadInput, match="--corpus"):
        command.run(args)
