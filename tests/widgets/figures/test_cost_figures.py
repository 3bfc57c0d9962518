"""Cost figures: what is predicted says so, pairs keep their gap, a tree's chances are products."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from lab_infos import some_costs, some_pairs

from widgets.figures import arena_charts, cost_curves, predicted_measured, tree_shape
from widgets.figures.tree_shape import TreeShape
from widgets.labs.arena import pictures


def test_predicted_curves_say_so_in_figure_rows_and_twin():
    measured, predicted = some_costs(1, 4), some_costs(2, 4)
    assert predicted.predicted and not measured.predicted
    for info, word in ((measured, "measured"), (predicted, "predicted")):
        assert word in cost_curves.figure(info)["layout"]["title"]["text"]
        assert word in cost_curves.svg(info)
        assert {row["how"] for row in cost_curves.rows(info)} == {word}


def test_rows_stand_at_their_doublings():
    axis = cost_curves.figure(some_costs(1, 8))["layout"]["xaxis"]
    assert axis["type"] == "log" and axis["ticktext"] == [
        "1",
        "2",
        "4",
        "8",
        "16",
        "32",
        "64",
        "128",
    ]


def test_an_error_is_a_share_of_what_was_measured():
    pair = predicted_measured.Pair("4×2", 1.5, 1.2)
    assert predicted_measured.error(pair) == pytest.approx(0.25)
    assert predicted_measured.error(pair._replace(measured=None)) is None
    gaps = predicted_measured.figure(some_pairs(5))["data"][0]
    assert gaps["x"].count(None) == 4  # the fifth was not measured


@pytest.mark.parametrize("parent", [(), (-1,), (-1, 0, 0, -1, 3), tuple(range(-1, 63))])
def test_a_tree_is_drawn_whatever_its_size(parent):
    chance = tree_shape.chances(parent, (0.6, 0.2))
    root = ElementTree.fromstring(tree_shape.svg(TreeShape("Best tree", parent, chance)))
    boxes = [item for item in root.iter() if item.tag.endswith("rect")]
    assert len(boxes) == (1 if not parent else 1 + 2 * (len(parent) + 1))
    assert [row["depth"] for row in tree_shape.rows(TreeShape("", parent, chance))] == (
        tree_shape.depths(parent)
    )


def test_chances_are_products_along_the_path():
    found = tree_shape.chances((-1, 0, 0, -1, -1), (0.6, 0.2))
    assert found == pytest.approx((0.6, 0.36, 0.12, 0.2, 0.0))


def test_names_leave_out_what_all_share_also_inside_a_method():
    labels = ("plain", "rest, exact_match, fixed(depth=2, nodes=8)",
              "rest, exact_match, fixed(depth=4, nodes=8)", "rest, exact_match, fixed")  # fmt: skip
    table = [{"cell": n, "label": n, "target": "t", "temperature": 0.0} for n in labels]
    assert list(arena_charts.names(table[:3]).values()) == ["plain", "depth=2", "depth=4"]
    assert list(arena_charts.names(table).values())[3] == "fixed"


def test_a_figure_without_a_legend_gets_one_without_room():
    figure = pictures.bars(arena_charts.ranking([]))
    assert figure["layout"]["showlegend"] and figure["layout"]["legend"]["yref"] == "paper"
    assert "height" not in figure["layout"]
    drawn = predicted_measured.figure(some_pairs(3))
    assert pictures.steady(drawn) is drawn
