"""The peers table: same text on both sides, honest columns, metric code checked by hand."""

import argparse
import json

import pytest

from workbench.bench import peers
from workbench.core.errors import BadInput
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    peers.add_arguments(parser)
    return parser.parse_args(list(words))


def test_table_on_the_embedded_models(capsys):
    args = arguments(
        "--kind", "test", "--new-tokens", "12", "--repeats", "1", "--temperatures", "0", "--json"
    )
    assert peers.run(args) == 0
    report = json.loads(capsys.readouterr().out)
    table = {row["row"]: row for row in report["tables"]["zoo:target T=0"]}
    assert len(table) == 7
    for row in table.values():
        assert row["same_tokens"] == "3/3", row
        assert row["tokens_per_s"] > 0
    assert table["ours: none"]["mean_emitted"] == 1.0
    assert table["transformers: generate"]["mean_emitted"] == 1.0
    assert table["ours: draft_model"]["mean_emitted"] == pytest.approx(
        table["transformers: assisted"]["mean_emitted"], rel=0.25
    ), "the same pair and length must accept alike"
    assert set(report["tables"]) == {"zoo:target T=0", "zoo:draft T=0"}


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(BadInput, match="code"):
        peers.run(arguments("--kind", "poems"))


def test_repeated_ratio_by_hand():
    assert peers.repeated_ratio([1, 2, 3, 4, 5]) == 0.0
    assert peers.repeated_ratio([7] * 8) == pytest.approx(0.8)  # five 4-grams, one distinct
    assert peers.repeated_ratio([1, 2]) == 0.0


def test_ratios_and_their_direction():
    def row(name: str, seconds: list[float]) -> peers.Row:
        tokens = [[1] * 10 for _ in seconds]
        return peers.Row(name, lambda *a: ([], 0), seconds, tokens, [5] * len(seconds))

    rows = [row("transformers: generate", [2.0, 4.0]), row("ours: none", [1.0, 2.0])]
    table = peers.summarise(rows, greedy=True)
    assert table[1]["ratio_to_transformers"] == 2.0
    assert table[0]["ratio_to_own_ar"] == 0.5
    assert table[1]["mean_emitted"] == 2.0


def test_where_greedy_texts_part_the_models_own_gap_is_told():
    model = load("zoo:draft")
    ids = model.encode("def add(a, b):\n")
    settings = RunSettings(model, "def add(a, b):\n", "none", max_new_tokens=6)
    text = generate(settings).new_tokens
    assert peers.divergence_gap(model, ids, text, text) is None
    other = [*text[:3], (text[3] + 1) % 4096, *text[4:]]
    logits = model.session().forward([*ids, *text[:3]]).logits[-1]
    first, second = logits.topk(2).values.tolist()
    assert peers.divergence_gap(model, ids, text, other) == pytest.approx(first - second, rel=1e-3)
    rows = [peers.Row(n, lambda *_: ([], 0)) for n in ("transformers: generate", "ours: none")]
    rows[0].tokens, rows[1].tokens = [text, text], [text, other]
    peers.note_gaps(rows, model, ["def add(a, b):\n"], 2)
    assert rows[0].gaps == [] and rows[1].gaps == pytest.approx([first - second], rel=1e-3)
