"""Where a text ends: EOS at every place, every budget, every length of prompt."""

from __future__ import annotations

import pytest
from scripted import Scripted, greedy_text, run_by_hand

from workbench.core.decoding import Need
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.method import methods
from workbench.core.sampling import Sampling
from workbench.engine.run import RunSettings, generate
from workbench.policies.fixed import Fixed
from workbench.testing.variants import variants

PROMPT = [10, 20, 30, 20, 10]
COUNT = 24
SCRIPTS = {
    "all": {"right": (4,), "wrong": 0},
    "none": {"right": (0,), "wrong": 4},
    "some": {"right": (2, 0, 4, 1, 3), "wrong": 1},
    "tree": {"right": (3, 1, 0, 2), "wrong": 1, "branching": True},
}


@pytest.fixture(scope="module")
def model(loaded):
    return loaded("llama")


@pytest.fixture(scope="module")
def answer(model) -> list[int]:
    return greedy_text(model, PROMPT, COUNT + 8)


def scripted(answer: list[int], script: str) -> Scripted:
    return Scripted((*PROMPT, *answer), **SCRIPTS[script])


def test_the_scripts_force_what_they_promise(model, answer):
    """Otherwise the tests below would never reach the branches they are for."""
    seen = {}
    for name in SCRIPTS:
        done = run_by_hand(model, PROMPT, scripted(answer, name), COUNT)
        assert done.new == answer[:COUNT]
        assert len(done.rounds) > 3
        seen[name] = [(r.accepted, r.end_fate) for r in done.rounds[:5]]
    assert seen["all"][0] == (4, "bonus")
    assert seen["none"][0] == (0, "corrected")
    assert seen["some"] == [(n, "corrected") for n in (2, 0, 4, 1, 3)]
    assert seen["tree"][0] == (3, "corrected")
    assert seen["tree"][2] == (0, "corrected")


@pytest.mark.parametrize("script", SCRIPTS)
def test_eos_ends_the_text_wherever_it_falls(model, answer, script):
    """Each token of the answer in turn is EOS: in the block, as bonus, as correction, first."""
    ends = set()
    for stop in dict.fromkeys(answer[:COUNT]):
        done = run_by_hand(model, PROMPT, scripted(answer, script), COUNT, eos_ids={stop})
        assert done.new == answer[: answer.index(stop) + 1]
        assert done.run.finish == "eos"
        last = done.rounds[-1]
        ends.add("inside" if len(last.emitted) <= last.accepted else last.end_fate)
        assert done.run.target.tokens == [*PROMPT, *answer[: len(done.run.target) - len(PROMPT)]]
    wanted = {"all": {"inside", "bonus"}, "none": {"corrected"}}
    assert ends >= wanted.get(script, {"inside", "corrected"})


def test_the_first_of_several_eos_ids_counts(model, answer):
    for first in range(COUNT - 3):
        stops = {answer[first], answer[first + 2], 255}
        done = run_by_hand(model, PROMPT, scripted(answer, "all"), COUNT, eos_ids=stops)
        end = next(i for i, token in enumerate(answer) if token in stops)
        assert done.new == answer[: end + 1]


def test_eos_as_the_last_token_allowed(model, answer):
    for count in range(1, 12):
        stop = answer[count - 1]
        done = run_by_hand(model, PROMPT, scripted(answer, "all"), count, eos_ids={stop})
        assert done.new == answer[: answer.index(stop) + 1]
        assert done.run.finish == "eos"


def test_eos_of_the_checkpoint_is_used(checkpoint, answer):
    from workbench.models.load import load

    stops = [answer[7], answer[3]]
    model = load(str(checkpoint("llama", eos_token_id=stops)))
    assert model.eos_ids == frozenset(stops)
    text = model.decode(PROMPT)
    if model.encode(text) != PROMPT:
        pytest.fail("the prompt must survive its own text")
    trace = generate(RunSettings(model, text, "token_recycling", max_new_tokens=COUNT))
    end = min(answer.index(stop) for stop in stops)
    assert trace.new_tokens == answer[: end + 1]
    assert trace.finish == "eos"


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_budget_is_overshot(model, answer, script):
    for count in range(1, 4 + 3):
        done = run_by_hand(model, PROMPT, scripted(answer, script), count)
        assert done.new == answer[:count]
        assert done.run.finish == "length"
        assert sum(len(r.emitted) for r in done.rounds) == count
        for r in done.rounds:  # nothing is drafted that could not be emitted
            assert max(r.depth, default=0) < len(PROMPT) + count - r.start


@pytest.mark.parametrize("drafter", ["none", "draft_model", "prompt_lookup", "token_recycling"])
@pytest.mark.parametrize("depth", [1, 3])
def test_no_drafter_overshoots_any_budget(model, answer, drafter, depth):
    for count in range(1, depth + 3):
        draft = model.session() if drafter == "draft_model" else None
        knobs = {"depth": depth, "nodes": 24}
        done = run_by_hand(model, PROMPT, drafter, count, draft=draft, knobs=knobs)
        assert done.new == answer[:count]


def test_the_shortest_prompt(model):
    done = run_by_hand(model, [65], "token_recycling", 12)
    assert done.new == greedy_text(model, [65], 12)
    trace = generate(RunSettings(model, "a", "prompt_lookup", max_new_tokens=12))
    assert trace.new_tokens == greedy_text(model, trace.prompt_tokens, 12)


@pytest.mark.parametrize("drafter", ["none", "draft_model", "prompt_lookup", "token_recycling"])
@pytest.mark.parametrize("left", [1, 2, 3, 7])
def test_the_longest_prompts(model, drafter, left):
    text = "ab" * 128
    text = text[: model.context_tokens - left]
    draft = model if drafter == "draft_model" else None
    trace = generate(RunSettings(model, text, drafter, max_new_tokens=40, draft_model=draft))
    assert trace.new_tokens == greedy_text(model, trace.prompt_tokens, left)
    assert trace.finish == "context"
    exact = RunSettings(model, text, drafter, max_new_tokens=left, draft_model=draft)
    assert generate(exact).finish == "length"


EVERY = [variants(card)[0] for card in methods("drafter")]  # heads untrained: none fits here


@pytest.mark.parametrize("left", [1, 3])
@pytest.mark.parametrize("drafter", EVERY, ids=lambda drafter: drafter.name)
def test_every_drafter_fits_what_the_context_still_holds(model, drafter, left):
    """A tree of eighty nodes where one or three more tokens have room: cut, and still exact."""
    text = ("ab" * 128)[: model.context_tokens - left]
    draft = model if Need.DRAFT in drafter.needs else None
    policy = Fixed(depth=12, nodes=80, width=8)
    settings = RunSettings(model, text, drafter, policy=policy, max_new_tokens=40)
    trace = generate(settings.change(draft_model=draft))
    assert trace.new_tokens == greedy_text(model, trace.prompt_tokens, left)
    assert trace.finish == "context"


def test_a_draft_with_a_shorter_context_drafts_while_it_can(model, loaded):
    short = loaded("llama", max_position_embeddings=32, seed=0)
    settings = RunSettings(model, "abcabc" * 4, "draft_model", max_new_tokens=24, draft_model=short)
    trace = generate(settings)
    assert trace.new_tokens == greedy_text(model, trace.prompt_tokens, 24)
    assert trace.rounds[0].tokens
    assert not trace.rounds[-1].tokens
    with pytest.raises(BadInput, match="more than the draft model"):
        generate(settings.change(prompt="abcabc" * 7))


@pytest.mark.parametrize("length", [256, 257, 1000])
def test_a_prompt_too_long(model, length):
    with pytest.raises(BadInput, match=f"prompt has {length} tokens, more than the 256"):
        generate(RunSettings(model, "x" * length))


def test_an_empty_prompt(model):
    with pytest.raises(BadInput, match="prompt='' is empty"):
        generate(RunSettings(model, ""))
    with pytest.raises(BadInput, match="prompt is empty"):
        run_by_hand(model, [], "none", 3)
    with pytest.raises(BadInput, match="expected text"):
        RunSettings(model, None)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "8", None])
def test_no_new_tokens(model, count):
    with pytest.raises(BadInput, match="max_new_tokens="):
        RunSettings(model, "abc", max_new_tokens=count)


def test_nothing_is_lost_by_a_mistake(model):
    """A refused call leaves the session of a run as it was."""
    session = model.session()
    session.sync(PROMPT)
    with pytest.raises(WorkbenchError):
        run_by_hand(model, [], "none", 3, session=session)
    assert session.tokens == PROMPT


def test_a_branching_tree_for_a_chain_rule_says_so(model):
    settings = RunSettings(
        model, "abcabcabd", "token_recycling", "rejection", sampling=Sampling(1.0)
    )
    with pytest.raises(WorkbenchError, match="takes one chain"):
        generate(settings)
    with pytest.raises(WorkbenchError, match="needs a draft model"):
        generate(settings.change(drafter="draft_model"))
