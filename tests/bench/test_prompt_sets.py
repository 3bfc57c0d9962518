"""Prompt sets: embedded, Spec-Bench files, any JSONL, saved data sets; broken lines by name."""

from __future__ import annotations

import importlib
import json
import sys
import types

import pytest

from workbench.bench.datasets import open_prompts
from workbench.core.errors import BadInput
from workbench.zoo.held_out import prompts as held_out

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write a post.", "Rewrite it."]},
    {"question_id": 82, "category": "writing", "turns": ["Write a letter."]},
    {"question_id": 90, "category": "math", "turns": ["2 + 2?", "Why?"]},
]


def jsonl(path, rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_embedded_prompts_by_kind_and_all():
    assert [p.text for p in open_prompts("zoo:code").prompts] == [p.text for p in held_out("code")]
    assert len(open_prompts("zoo").prompts) == len(held_out())
    with pytest.raises(BadInput, match=r"zoo:cod.*Did you mean 'zoo:code'"):
        open_prompts("zoo:cod")


def test_spec_bench_questions(tmp_path):
    source = jsonl(tmp_path / "question.jsonl", QUESTIONS)
    first = open_prompts(source)
    assert [(p.name, p.kind, p.text) for p in first.prompts] == [
        ("81", "writing", "Write a post."),
        ("82", "writing", "Write a letter."),
        ("90", "math", "2 + 2?"),
    ]
    every = open_prompts(source, turns="all")
    assert every.prompts[0].text == "Write a post.\n\nRewrite it."
    assert every.describe()["turns"] == "all" and every.fingerprint != first.fingerprint
    assert [p.name for p in first.first(1).prompts] == ["81", "90"]


def test_any_jsonl_with_a_named_field(tmp_path):
    source = jsonl(tmp_path / "rows.jsonl", [{"words": "a b", "task": "x"}, {"words": "c"}])
    found = open_prompts(source, field="words", kind_field="task").prompts
    assert [(p.name, p.kind, p.text) for p in found] == [("0", "x", "a b"), ("1", "all", "c")]
    with pytest.raises(BadInput, match=r"line 1: no field turns, prompt.*it has words, task"):
        open_prompts(source)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"turns": ["a"', "not JSON"),
        ('{"turns": []}', "turns: expected a list"),
        ('{"turns": ["a", 3]}', "turns: expected a list"),
        ('{"turns": ["  "]}', "its text is empty"),
        ('{"prompt": 7}', "prompt: expected text, got int"),
        ("[1]", "expected an object"),
        ('{"question_id": 81, "turns": ["again"]}', "'81' is there twice"),
        ("\udcff\udcfe", "not JSON"),
    ],
)
def test_a_broken_line_is_named_and_skipped_only_when_asked(tmp_path, line, reason):
    path = tmp_path / "question.jsonl"
    rows = [json.dumps(QUESTIONS[0]), "", line, json.dumps(QUESTIONS[1])]
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=r"question\.jsonl line 3: .*--skip-broken") as error:
        open_prompts(str(path))
    assert reason in str(error.value)
    kept = open_prompts(str(path), skip_broken=True)
    assert [p.name for p in kept.prompts] == ["81", "82"]
    assert len(kept.skipped) == kept.describe()["skipped"] == 1 and "line 3" in kept.skipped[0]


def test_nothing_to_measure_is_an_error(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="holds no prompt"):
        open_prompts(str(tmp_path / "none.jsonl"))
    with pytest.raises(BadInput, match="no such file or folder"):
        open_prompts(str(tmp_path / "missing.jsonl"))


def test_a_saved_dataset_needs_the_library_that_saved_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"pip install datasets; or export it with to_json"):
        open_prompts(str(tmp_path))


def test_rows_of_a_saved_dataset(tmp_path, monkeypatch):
    """With the library's surface in place of it: what its folders hold was tried by hand."""
    library = types.ModuleType("datasets")
    library.load_from_disk = lambda path: [{"text": "one"}, {"text": "two"}, {"text": None}]
    monkeypatch.setitem(sys.modules, "datasets", library)
    assert importlib.import_module("datasets") is library
    found = open_prompts(str(tmp_path), skip_broken=True)
    assert [p.text for p in found.prompts] == ["one", "two"]
    assert "row 2: text: expected text" in found.skipped[0]
    library.load_from_disk = lambda path: {"train": [], "test": []}
    with pytest.raises(BadInput, match=r"several splits \(train, test\)"):
        open_prompts(str(tmp_path))
