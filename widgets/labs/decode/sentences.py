"""What the lab says in words about a selected node: pure functions of a trace."""

from __future__ import annotations

from typing import NamedTuple

from widgets import theme
from widgets.labs.decode.selection import ROOT, Selection
from workbench.core.method import methods
from workbench.core.trace import Round, Top, Trace


class NodeFacts(NamedTuple):
    """Everything the detail block prints beside the picture."""

    title: str
    fate: str  # "accepted" | "rejected" | "untested" | "root" | "bonus" | "corrected"
    numbers: list[tuple[str, str]]  # label, value
    why_title: str
    why: str
    rule: str = ""  # title of the verifier that decided
    chance: float | None = None  # that the walk moves on to the node; None for extra tokens


def node_facts(trace: Trace, selection: Selection) -> NodeFacts:
    """Title, numbers and the reason for the fate of what is selected."""
    facts = _facts(trace, selection)
    return facts._replace(numbers=[*facts.numbers, *_crossed(trace.rounds[selection.round])])


def _crossed(round_: Round) -> list[tuple[str, str]]:
    """What was copied between two devices in the whole round, if anything."""
    moved = round_.transfer
    if moved is None:
        return []
    words = f"{theme.milliseconds(moved.ms)}, {theme.size(moved.bytes)}"
    return [("between devices, this round", words)]


def _facts(trace: Trace, selection: Selection) -> NodeFacts:
    round_, node = trace.rounds[selection.round], selection.node
    if selection.index is not None and selection.index >= len(round_.path):
        return _extra_facts(trace, round_)
    if node == ROOT:
        text = theme.visible(trace.piece(round_.root))
        reason = "The last committed token: the draft starts here, and p is the law right after it."
        return NodeFacts(f"Root “{text}”", "root", [], "What is the root?", reason)
    fate, depth = round_.node_fates[node], round_.depth[node]
    numbers = _entropies(round_, node)
    question = {"accepted": "Why was it accepted?", "rejected": "Why was it rejected?"}
    return NodeFacts(
        f"Node “{theme.visible(trace.piece(round_.tokens[node]))}” · depth {depth}",
        fate,
        numbers,
        question.get(fate, "Why was it never tested?"),
        why(trace, selection.round, node),
        _rule(trace),
        round_.accept[node],
    )


def _rule(trace: Trace) -> str:
    """Title of the verifier; its bare name where this installation does not know it."""
    titles = {card.name: card.title for card in methods("verifier")}
    return titles.get(trace.verifier.name, trace.verifier.name)


def _entropies(round_: Round, node: int) -> list[tuple[str, str]]:
    """How sure both laws were where the node was tested; older traces do not say."""
    if not round_.p_bits:
        return []
    target = round_.p_bits[round_.parent[node] + 1]
    if not round_.q_bits:
        return [("entropy of p", theme.bits(target))]
    return [("entropy of p, of q", f"{theme.bits(target)}, {theme.bits(round_.q_bits[node])}")]


def _extra_facts(trace: Trace, round_: Round) -> NodeFacts:
    """The token that verification itself produced at the end of a round."""
    text, fate = theme.visible(trace.piece(round_.bonus)), round_.end_fate
    row = round_.path[-1] + 1 if round_.path else 0
    p = _in_top(round_.p_top[row] if round_.p_top else None, round_.bonus)
    if fate == "bonus":
        reason = "Every drafted token on the way was kept, so the target's next one came for free."
    else:
        reason = (
            "No drafted token was kept here, so the target's own choice took the place:"
            " the text is the one that plain decoding could have written."
        )
    numbers = [] if p is None else [("target p", theme.chance(p))]
    title = f"Token “{text}” · round {round_.index + 1}"
    return NodeFacts(title, fate, numbers, "Where does it come from?", reason)


def _in_top(top: Top | None, token: int) -> float | None:
    if top is None or token not in top.ids:
        return None
    return top.probs[top.ids.index(token)]


def why(trace: Trace, position: int, node: int) -> str:
    """One plain sentence on why a node was accepted, refused or never tested."""
    round_ = trace.rounds[position]
    fate = round_.node_fates[node]
    name = f"“{theme.visible(trace.piece(round_.tokens[node]))}”"
    if fate == "untested":
        return _why_untested(trace, round_, node)
    p, chance = round_.p_node[node], round_.accept[node]
    above = round_.p_top[round_.parent[node] + 1] if round_.p_top else None
    if trace.sampling.get("temperature", 0) == 0:
        if fate == "accepted":
            return f"{name} is exactly the target's greedy choice after this prefix."
        best = "another token"
        if above and above.ids:
            best = f"“{theme.visible(trace.piece(above.ids[0]))}”"
        return f"Greedy decoding keeps only the target's first choice, which is {best} here."
    if round_.drawn == "chosen" or round_.q_node is None:
        gave = f"the target gives {name} {_is('p', p)}"
    else:
        gave = (
            f"the draft drew {name} with {_is('q', round_.q_node[node])}, the target {_is('p', p)}"
        )
    gave = gave[0].upper() + gave[1:]
    if fate == "accepted":
        return f"{gave}: {_odds(chance)} to be kept, and the round's draw kept it."
    if chance <= 0:
        return f"{gave}: with this rule nothing of that mass can be kept."
    return (
        f"{gave}: {_odds(chance)} to be kept, and the round's draw ({round_.uniform:.3f}) fell"
        " outside it."
    )


def _odds(chance: float) -> str:
    """``a chance of 0.36``, never one that is rounded to nothing or to certainty."""
    if 0 < chance < 0.005:
        return "a chance below 0.01"
    return "a chance above 0.99" if 0.995 <= chance < 1 else f"a chance of {chance:.2f}"


def _is(letter: str, value: float) -> str:
    """``p = 0.125``, or ``p < 0.001`` where rounding would call it zero."""
    return f"{letter} < 0.001" if 0 < value < 0.001 else f"{letter} = {value:.3f}"


def _why_untested(trace: Trace, round_: Round, node: int) -> str:
    parent = round_.parent[node]
    if parent == ROOT or parent in round_.path:
        kept = next((i for i in round_.path if round_.parent[i] == parent), None)
        if kept is None:
            return "The round ended before this sibling was looked at."
        text = theme.visible(trace.piece(round_.tokens[kept]))
        return f"Its sibling “{text}” was accepted first, so this one was never looked at."
    above = parent
    while round_.parent[above] != ROOT and round_.parent[above] not in round_.path:
        above = round_.parent[above]
    text = theme.visible(trace.piece(round_.tokens[above]))
    return f"It hangs below “{text}”, which was not accepted, so its turn never came."
