"""Cost curves, the roofline, and predicted beside measured."""

from __future__ import annotations

import json

import pytest

from workbench.bench.cost_curve import CostCurve, RoundCost, measure_curve
from workbench.bench.cost_model import cost_report
from workbench.bench.roofline import (
    Hardware,
    Size,
    fitted,
    link_ms,
    predicted_curve,
    predicted_ms,
    rows_for_free,
)
from workbench.cli import main
from workbench.core.errors import BadInput
from workbench.core.sampling import Sampling
from workbench.engine.run import RunSettings
from workbench.models.load import load

CURVE = CostCurve("m", (1, 4, 8), (0, 100), ((1.0, 4.0, 8.0), (2.0, 8.0, 16.0)))


def test_between_points_the_curve_is_straight_and_beyond_it_goes_on():
    assert CURVE.pass_ms(1, 0) == 1.0
    assert CURVE.pass_ms(2, 0) == pytest.approx(2.0)
    assert CURVE.pass_ms(6, 50) == pytest.approx(9.0)
    assert CURVE.pass_ms(16, 0) == pytest.approx(16.0)
    assert CURVE.pass_ms(1, 200) == pytest.approx(3.0)
    assert CURVE.pass_ms(3) == pytest.approx(3.0)


def test_a_curve_survives_json_and_damage_is_refused():
    assert CostCurve.from_json(json.loads(json.dumps(CURVE.to_json()))) == CURVE
    with pytest.raises(BadInput, match="cost curve"):
        CostCurve.from_json({"model": "m"})
    with pytest.raises(BadInput, match="rising"):
        CostCurve("m", (4, 1), (0,), ((1.0, 2.0),))
    with pytest.raises(BadInput, match="one value"):
        CostCurve("m", (1, 4), (0,), ((1.0,),))


def test_measured_curves_fit_the_context_and_can_be_stopped(loaded):
    model = loaded("llama")
    curve = measure_curve(model, rows=(1, 4, 10**6), contexts=(8, 10**7), repeats=1)
    assert curve.rows == (1, 4) and curve.contexts == (8,)
    assert all(ms > 0 for line in curve.ms for ms in line)
    assert measure_curve(model, repeats=1, stopped=lambda: True) is None
    with pytest.raises(BadInput, match="none fits"):
        measure_curve(model, rows=(10**6,), repeats=1)


def test_a_round_costs_its_levels_and_its_pass():
    draft = CostCurve("d", (1, 4), (0,), ((0.1, 0.4),))
    cost = RoundCost(CURVE, draft, other_ms=0.5, link_ms=0.25)
    # The root's pass, two levels of 2 nodes each, 7 rows to verify.
    assert cost.round_ms(6, 3, 0) == pytest.approx(0.1 + 2 * 0.2 + 7.0 + 0.5 + 0.25)
    assert cost.plain_ms(0) == pytest.approx(1.5)
    assert cost.round_ms(0, 0, 0) == pytest.approx(1.5)
    assert cost.speedup(3.0, 6, 3, 0) == pytest.approx(3 * 1.5 / 8.25)


def test_few_rows_wait_for_memory_and_many_for_arithmetic():
    size = Size("7 B", 7e9, 2.0, layers=0)
    card = Hardware("card", 1000, 100, overhead_us=0)
    assert predicted_ms(size, card, 1, 0) == pytest.approx(14.0)
    free = rows_for_free(size, card)
    assert free == pytest.approx(100)
    assert predicted_ms(size, card, int(free), 0) == pytest.approx(14.0)
    assert predicted_ms(size, card, int(2 * free), 0) == pytest.approx(28.0)
    assert predicted_curve(size, card).predicted
    seen = fitted(predicted_curve(size, card, (1, 4096), (0,)), size)
    assert (seen.bandwidth_gb_s, seen.tflops) == pytest.approx((1000, 100))
    assert link_ms(card, 10, 32_000, 2) == pytest.approx(10 * 32_000 * 4 / 32e9 * 1e3 + 0.02)
    with pytest.raises(BadInput, match="tflops"):
        Hardware("none", 1, 0)


def test_a_models_size_counts_what_a_pass_multiplies(loaded):
    model = loaded("llama")
    size = Size.of(model)
    multiplied = sum(
        p.numel() for name, p in model.network.named_parameters() if "embed" not in name
    )
    tied = model.network.config.tie_word_embeddings
    head = model.network.get_output_embeddings().weight.numel() if tied else 0
    assert size.parameters == multiplied + head
    config = model.network.config
    per_layer = 2 * config.num_key_value_heads * config.head_dim * 4
    assert size.kv_bytes == per_layer * model.layer_count


def test_prediction_and_measurement_stand_side_by_side():
    target = load("zoo:draft")
    settings = RunSettings(
        target, "-", "token_recycling", "exact_match", "fixed", Sampling(), 16, record_top=0
    )
    report = cost_report(settings, ["def add(a, b):\n"], sizes=((4, 2), (8, 3)), repeats=1)
    assert [row.nodes for row in report.rows] == [4, 8]
    for row in report.rows:
        assert 1 <= row.emitted <= row.depth + 1
        assert 1 <= row.predicted_emitted <= row.depth + 1
        assert row.measured_ms > 0 and row.predicted_ms > 0
    assert 0 < report.acceptance[0] < 1
    with pytest.raises(BadInput, match="prompts"):
        cost_report(settings, [])


def test_the_command_prints_tables_and_json(capsys):
    common = ["bench", "cost", "--model", "zoo:draft", "--prompts", "1", "--new-tokens", "8"]
    assert main([*common, "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    assert "predicted" in said and "H200" in said
    assert main([*common, "--kind", "nothing"]) == 2
    capsys.readouterr()
    for words in (
        ("--threads", "0"),
        ("--repeats", "0"),
        ("--prompts", "0"),
        ("--new-tokens", "1"),
    ):
        assert main([*common, *words]) == 2
        assert words[0].strip("-").replace("-", "_") in capsys.readouterr().err


@pytest.mark.parametrize("command", ["peers", "performance"])
@pytest.mark.parametrize("words", [("--threads", "0"), ("--repeats", "0")])
def test_counts_below_one_are_refused_by_name(command, words, capsys):
    assert main(["bench", command, *words]) == 2
    assert words[0].strip("-") in capsys.readouterr().err
