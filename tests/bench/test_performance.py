"""The performance page: measured in small, written in parts, kept where it was."""

from __future__ import annotations

import argparse

import pytest
import torch

from widgets.growth import by_rounds, live_slowdown, longer
from widgets.labs.decode.recorded import recorded_trace
from workbench.bench import growth, performance
from workbench.models.load import load


def test_models_of_other_sizes_keep_the_tokenizer_and_run_compiled():
    like = load("zoo:draft")
    model = growth.random_model(like, "small", (64, 2, 96), context=300)
    assert model.tokenizer is like.tokenizer
    assert model.context_tokens == 300 and model.layer_count == 2
    weight = next(model.network.parameters())
    assert (weight == weight.bfloat16().float()).all()
    rows = growth.by_size(like, ((64, 2, 96),), tokens=3)
    assert rows[0]["ours_ms"] > 0 and rows[0]["transformers_ms"] > 0
    assert rows[0]["parameters_m"] == pytest.approx(model.parameters / 1e6)


def test_growth_with_context_and_rows():
    like = load("zoo:draft")
    rows = growth.by_context(like, (16, 64))
    assert [row["context"] for row in rows] == [16, 64]
    assert all(row["ms_16_rows"] > 0 for row in rows)
    rows = growth.by_rows(like, (1, 4), context=16)
    assert rows[0]["x_one_row"] == 1 and rows[1]["ms_a_row"] == pytest.approx(rows[1]["ms"] / 4)


def test_every_way_to_run_a_pass_is_timed(monkeypatch):
    monkeypatch.setattr(
        torch, "compile", lambda network, dynamic: network
    )  # 20 s, not ours to test
    row = growth.by_pass(load("zoo:draft"), (3,), repeats=1)[0]
    assert row["rows"] == 3
    assert all(row[f"{name}_ms"] > 0 for name in ("transformers", "walk", "fused", "kernel"))


def test_a_longer_trace_is_a_trace():
    trace = longer(recorded_trace(), 120)
    assert len(trace.rounds) == 120
    assert [r.index for r in trace.rounds] == list(range(120))
    assert type(trace).from_json(trace.to_json()) == trace
    row = by_rounds(recorded_trace(), (5,))[0]
    assert row["rounds"] == 5 and row["acceptance_map_ms"] > 0 and row["largest_kb"] > 0


def test_a_live_lab_is_compared_with_the_bare_run():
    found = live_slowdown(load("zoo:draft"), "def f(x):\n", tokens=8, repeats=1)
    assert found["ratio"] == found["ratios"][0] > 0


def test_parts_are_written_apart_and_in_order(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(performance, "REPORT", tmp_path / "performance.md")
    monkeypatch.setitem(
        performance.MEASURES, "rows", lambda say, repeats: {"rows": [{"rows": 1, "ms": 2.5}]}
    )

    def labs(say, repeats):
        return {"rows": [{"rounds": 10, "ms": 1234.5}], "notes": ["A note."]}

    def write(*parts):
        args = argparse.Namespace(part=parts, write=True, repeats=1, threads=1, json=False)
        assert performance.run(args, labs) == 0
        return (tmp_path / "performance.md").read_text()

    first = write("labs")
    assert "| 10 | 1234 |" in first and "A note." in first
    both = write("rows")
    assert both.index("<!-- rows -->") < both.index("<!-- labs -->")
    assert "| 1 | 2.5 |" in both and first.split("<!-- labs -->")[1] in both


def test_the_targets_table_says_against_what():
    rows = [
        {
            "row": name,
            "tokens_per_s": rate,
            "mean_emitted": 1.0,
            "ratio_to_own_ar": 1.0,
            "ratio_to_own_ar_interval": [0.9, 1.1],
            "repeated_4gram_ratio": 0.5,
            "outside_forward_ratio": outside,
            "same_tokens": "4/5",
            "largest_divergence_gap": gap,
        }
        for name, rate, outside, gap in (
            ("transformers: generate", 50, None, None),
            ("ours: none", 150, 0.1, 0.003),
        )
    ]
    lines = performance._targets(rows)
    assert "x plain" in lines[0] and "outside" in lines[0]
    assert "| 3 |" in lines[3] and "10%" in lines[3] and "[0.90, 1.10]" in lines[3]
    assert "4/5 (gaps up to 0.003)" in lines[3] and "gaps" not in lines[2]
