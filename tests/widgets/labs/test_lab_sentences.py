"""What the lab says about a node agrees with the numbers of the round."""

from __future__ import annotations

from types import SimpleNamespace

from lab_script import make_round, make_trace

from widgets.labs.decode.lab_view import model_line
from widgets.labs.decode.selection import Selection, telling_round
from widgets.labs.decode.sentences import node_facts, why
from workbench.core.trace import Top


def test_a_refused_drawn_node_names_p_q_and_the_draw(trace):
    text = why(trace, 0, 2)
    assert "q = 0.500" in text and "p = 0.200" in text and "0.40" in text and "0.300" in text


def test_greedy_refusal_names_the_targets_choice(trace):
    greedy = trace.with_(sampling={"temperature": 0.0})
    assert "“⏎”" in why(greedy, 0, 2), "the likeliest token after the accepted node"
    assert "greedy choice" in why(greedy, 0, 0)


def test_a_chosen_node_has_no_q():
    import msgspec

    chosen = msgspec.structs.replace(
        make_round(0), drawn="chosen", q_node=None, q_top=[], p_bits=[1.5, 2.25, 0, 0, 0, 0]
    )
    facts = node_facts(make_trace(0).with_(rounds=[chosen]), Selection(0, 2))
    assert facts.numbers == [("entropy of p", "2.25 bits")] and "drew" not in facts.why


def test_a_drawn_node_says_how_sure_both_models_were(trace):
    import msgspec

    told = msgspec.structs.replace(make_round(0), p_bits=[0.0] * 6, q_bits=[0, 0, 3.128, 0, 0])
    facts = node_facts(trace.with_(rounds=[told]), Selection(0, 2))
    assert facts.numbers == [("entropy of p, of q", "0 bits, 3.13 bits")]
    assert node_facts(trace, Selection(0, 2)).numbers == [], "an older trace does not know"


def test_siblings_of_one_law_are_asked_of_the_rules_for_one_law():
    """The recorded run's siblings were drawn from one law, of which each node knows a part."""
    from widgets.labs.decode.recorded import recorded_trace
    from workbench.engine.replay import acceptance_by_law

    kept = recorded_trace()
    assert kept is not None
    at = telling_round(kept)
    node = kept.rounds[at].node_fates.index("rejected")
    assert "k-SEQ (SpecTr)" in acceptance_by_law(kept.rounds[at], node)
    assert node_facts(kept, Selection(at, node)).numbers, "the first picture has no entropies"


def test_untested_nodes_name_what_stood_in_the_way(trace):
    assert "sibling “⏎” was accepted first" in why(trace, 0, 1)
    assert "below “·return”" in why(trace, 0, 4)


def test_titles_and_fates(trace):
    cases = {
        Selection(0, -1): "root",
        Selection(0, 0, 0): "accepted",
        Selection(0, 2): "rejected",
        Selection(0, 4): "untested",
        Selection(0, 0, 1): "corrected",
    }
    for selection, fate in cases.items():
        facts = node_facts(trace, selection)
        assert facts.fate == fate and facts.title and facts.why.endswith(".")


def test_the_extra_token_of_a_fully_kept_draft_is_a_bonus(trace):
    import msgspec

    kept = msgspec.structs.replace(
        trace.rounds[0], path=[0, 2, 4], emitted=[5, 6, 1, 7], p_top=[Top([7], [0.7])] * 6
    )
    facts = node_facts(trace.with_(rounds=[kept]), Selection(0, 4, 3))
    assert facts.fate == "bonus" and facts.numbers == [("target p", "0.70")]


def test_the_telling_round_of_an_empty_trace_is_the_first():
    assert telling_round(make_trace(0)) == 0


def test_the_line_of_a_model_says_that_it_was_widened():
    model = SimpleNamespace(name="m", parameters=2e6, dtype="float32", device="cpu", precision="")
    assert model_line(model, "m", None) == "m · 2.0 M · fp32 · cpu"
    model.precision = "stored in bfloat16, run in float32"
    assert model_line(model, "m", None) == "m · 2.0 M · fp32 (widened) · cpu"
