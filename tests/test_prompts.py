"""The held-out prompts: enough of each kind, of usable length, and from text never trained on."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from workbench.core.errors import BadInput
from workbench.models.corpus import part_of, read_corpus
from workbench.zoo import held_out
from workbench.zoo.held_out import FOLDER, KINDS, cut, prompt, prompts


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER.parent / "weights" / "tokenizer")


def test_every_kind_has_at_least_three():
    counts = Counter(p.kind for p in prompts())
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 3


def test_names_are_unique_and_begin_with_their_kind():
    names = [p.name for p in prompts()]
    assert len(set(names)) == len(names)
    assert all(p.name.startswith(p.kind + "_") for p in prompts())


def test_no_text_file_without_an_entry():
    assert {p.stem for p in FOLDER.glob("*.txt")} == {p.name for p in prompts()}


@pytest.mark.parametrize("p", prompts(), ids=lambda p: p.name)
def test_length_and_ending(p, tokenizer):
    ids = tokenizer(p.text, add_special_tokens=False)["input_ids"]
    assert 40 <= len(ids) <= 200
    assert tokenizer.decode(ids) == p.text
    assert not p.text.endswith("\n"), "a trailing line break hides what comes next"


@pytest.mark.parametrize("p", prompts(), ids=lambda p: p.name)
def test_source_is_not_trained_on(p):
    assert part_of(p.source) in ("held_out", "families")


def test_no_prompt_stands_in_a_training_file():
    trained = [f.text for f in read_corpus() if f.part == "train"]
    copied = [p.name for p in prompts() if any(p.text in text for text in trained)]
    assert trained and not copied


def test_cuts_come_out_as_stored_where_this_python_words_them_so():
    texts = {f.path: f.text for f in read_corpus()}
    rows = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    same = 0
    for row in rows:
        text = texts.get(row["source"], "")
        if row["begin"] in text and row["end"] in text:
            same += cut(text, row["begin"], row["end"]) == prompt(row["name"]).text
    # Other versions of Python reword a file here and there; most cuts must still be found.
    assert same >= len(rows) // 2


def test_regenerate_refuses_a_source_that_is_trained_on(tmp_path, monkeypatch):
    trained = next(f for f in read_corpus() if f.part == "train")
    row = {"name": "code_bad", "kind": "code", "source": trained.path, "begin": "", "end": ""}
    monkeypatch.setattr(held_out, "_index", lambda: [row])
    with pytest.raises(ValueError, match="trained on"):
        held_out.regenerate(tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_offered_the_closest():
    with pytest.raises(BadInput, match="code_attrgetter"):
        prompt("code_atrgetter")
    with pytest.raises(BadInput, match="prose"):
        prompts("pros")
