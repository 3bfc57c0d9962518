"""Laws and chains of the kernel are those that torch and single steps give."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from plain import some_tokens

from workbench.core.method import make_method
from workbench.core.sampling import Sampling, draw
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.models.native import build
from workbench.models.native.laws import compiled_laws, entropies, largest

pytestmark = pytest.mark.skipif(
    build.compiler() is None, reason="no C++ compiler here, so passes run on torch alone"
)

HOT = Sampling(0.8, seed=3)


def stepping(model):
    """The same weights; every token is a pass of its own, by torch."""
    other = copy.copy(model)
    other.__dict__["native"] = None
    return other


def begun(model):
    """A session that has run a pass, so that it knows what one takes."""
    session = model.session()
    session.forward([5])
    session.crop(0)
    return session


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.8, 1.0, 30.0])
@pytest.mark.parametrize("width", [1, 7, 8, 37, 4096])
def test_laws_highest_logits_and_entropies(temperature, width):
    sampling = Sampling(temperature)
    logits = 6 * torch.randn(5, width, generator=torch.Generator().manual_seed(width))
    logits[1, : width // 2] = -math.inf
    logits[2] = logits[2, 0]  # ties: the first one wins
    found, wanted = compiled_laws(sampling, logits), sampling.law(logits.double())
    torch.testing.assert_close(found.laws.double(), wanted, atol=2e-7, rtol=2e-6)
    assert found.highest == logits.amax(-1).tolist()
    bits = torch.special.entr(wanted).sum(-1) / math.log(2)
    torch.testing.assert_close(torch.tensor(found.bits).double(), bits, atol=3e-6, rtol=1e-5)
    if not temperature:
        assert torch.equal(found.laws.double(), wanted)


@pytest.mark.parametrize("width", [1, 5, 64, 65, 300, 4096])
@pytest.mark.parametrize("k", [1, 4, 8, 64])
def test_the_largest_of_each_row(width, k):
    rows = torch.randn(6, width, generator=torch.Generator().manual_seed(width + k))
    rows[1] = rows[1].round()  # many ties: the first come first
    rows[2] = rows[2].sort().values  # each is larger than all before
    rows[3] = 0
    rows[4, : width // 2] = -math.inf
    found = largest(rows, k)
    order = np.argsort(-rows.numpy(), axis=-1, kind="stable")[:, :k]
    assert (found.places == order).all()
    assert (found.values == np.take_along_axis(rows.numpy(), order, -1)).all()


def test_what_is_no_number_is_the_least():
    rows = torch.tensor([[math.nan, 1.0, math.nan, 3.0, -math.inf]])
    assert largest(rows, 2).places.tolist() == [[3, 1]]
    places = largest(rows, 5).places[0]
    assert sorted(places) == list(range(5)), "a place twice"
    double = largest(rows.double().nan_to_num(), 2)  # torch's own
    assert double.places.tolist() == [[3, 1]] and double.values.dtype == np.float64


@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0, 40.0])
@pytest.mark.parametrize("width", [1, 7, 8, 37, 4096])
def test_entropies_of_laws(spread, width):
    logits = spread * torch.randn(3, width, generator=torch.Generator().manual_seed(width))
    laws = logits.softmax(-1)
    wanted = torch.special.entr(laws.double()).sum(-1) / math.log(2)
    assert entropies(laws) == pytest.approx(wanted.tolist(), rel=2e-6, abs=2e-6)
    by_torch = entropies(laws.double())
    assert by_torch == pytest.approx(wanted.tolist(), rel=1e-12)


def test_entropy_of_what_is_certain_impossible_or_hardly_possible():
    certain = torch.eye(16)[:2]
    assert entropies(certain) == entropies(certain.double()) == [0.0, 0.0]
    rare = torch.full((1, 16), 1e-40)
    rare[0, :3] = torch.tensor([0.5, 0.25, 0.25])
    assert entropies(rare) == pytest.approx([1.5], abs=1e-6)
    assert entropies(torch.empty(0, 16)) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 8, 36])
def test_a_logit_that_is_no_number_shows(bad, at):
    logits = torch.randn(2, 37)
    logits[1, at] = bad
    highest = compiled_laws(HOT, logits).highest
    assert math.isfinite(highest[0]) and not math.isfinite(highest[1])


@pytest.mark.parametrize(
    "sampling, logits",
    [
        (Sampling(0.8, top_k=5), torch.zeros(1, 8)),
        (Sampling(0.8, top_p=0.9), torch.zeros(1, 8)),
        (Sampling(1e-5), torch.zeros(1, 8)),
        (HOT, torch.zeros(1, 8, dtype=torch.bfloat16)),
        (HOT, torch.zeros(1, 16)[:, ::2]),
    ],
)
def test_what_the_kernel_cannot_do_is_torchs(sampling, logits):
    assert compiled_laws(sampling, logits) is None


def test_draws_are_those_of_the_sampling_module(loaded):
    model = loaded("llama")
    uniforms = [0.0, 0.3, 0.999999, 0.5, 1 - 2**-53]
    session = begun(model)
    assert session.runs_on(HOT, 5)
    drawn = session.run_on([5, 6], len(uniforms), HOT, uniforms)
    assert drawn.tokens == draw(drawn.laws, torch.tensor(uniforms)).tolist()
    assert session.tokens == [5, 6, *drawn.tokens[:-1]]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("sampling", [Sampling(), HOT], ids=["greedy", "hot"])
def test_a_chain_is_its_single_steps(family, sampling, loaded):
    model = loaded(family)
    ours, theirs = begun(model), begun(stepping(model))
    prompt = some_tokens(9)
    assert ours.runs_on(sampling, 5)
    theirs.sync(prompt[:6])
    ours.sync([*prompt[:6], 3, 3])  # what does not belong there is forgotten
    drawn = ours.run_on(prompt, 5, sampling, [0.1, 0.9, 0.4, 0.6, 0.2])
    warm = Sampling(1.0) if sampling.greedy else sampling
    seen = theirs.sync(prompt)
    for token, law, chance in zip(drawn.tokens, drawn.laws, drawn.chances, strict=True):
        wanted = warm.law(seen.logits[-1])
        torch.testing.assert_close(law, wanted, atol=1e-6, rtol=1e-4)
        assert float(chance) == float(law[token])
        if sampling.greedy:
            assert token == int(wanted.argmax())
        seen = theirs.forward([token])
        theirs.commit([0])
    after, wanted = ours.forward([drawn.tokens[-1]]), seen
    torch.testing.assert_close(after.logits, wanted.logits, atol=1e-4, rtol=1e-4)
    assert ours.forwards == theirs.forwards, "every step is a pass"


def test_a_chain_grows_the_cache(loaded):
    session = begun(loaded("llama"))
    session._cache.capacity = session._cache.layers[0].capacity = 8
    assert session.runs_on(Sampling(), 20)
    drawn = session.run_on([5, 6, 7], 20, Sampling(), ())
    plain = stepping(session.model).session()
    plain.sync([5, 6, 7, *drawn.tokens[:-1]])
    last = plain.forward(drawn.tokens[-1:]).logits
    torch.testing.assert_close(
        session.forward(drawn.tokens[-1:]).logits, last, atol=1e-4, rtol=1e-4
    )


def test_nothing_is_drawn_from_what_is_no_number(loaded):
    model = loaded("llama").clone()
    with torch.inference_mode():
        model.anatomy.norm.weight.fill_(math.nan)
    session = begun(model)
    assert session.runs_on(Sampling(), 3)
    assert session.run_on([5, 6], 3, Sampling(), ()) is None
    assert session.tokens == [5, 6]


def test_ids_without_an_embedding_are_refused(loaded):
    session = begun(loaded("llama"))
    assert session.runs_on(Sampling(), 2)
    with pytest.raises(IndexError, match="outside of the"):
        session.forward([session.model.vocab_size])
    with pytest.raises(IndexError, match="outside of the"):
        session.run_on([-1], 2, Sampling(), ())


def test_where_a_chain_is_not_to_be_had(loaded):
    llama = loaded("llama")
    assert begun(llama).runs_on(Sampling(), 3)
    assert not begun(loaded("mixtral")).runs_on(Sampling(), 3), "its experts stay with torch"
    assert not begun(stepping(llama)).runs_on(Sampling(), 3)
    assert not begun(llama).runs_on(Sampling(0.8, top_k=3), 3)
    assert not llama.session().runs_on(Sampling(), 3), "what a step takes is not known yet"


def test_a_chain_that_nobody_could_stop_goes_step_by_step(loaded):
    session = begun(loaded("llama"))
    session._pass_ms = 30.0
    assert session.runs_on(Sampling(), 3)
    assert not session.runs_on(Sampling(), 4)
    session.run_on([5, 6], 3, Sampling(), ())
    assert session.runs_on(Sampling(), 4), "it was quicker than that"


@pytest.mark.parametrize("sampling", [Sampling(), HOT], ids=["greedy", "hot"])
@pytest.mark.parametrize("siblings", [1, 3])
def test_runs_with_and_without_the_chain_are_one(sampling, siblings, monkeypatch):
    target, draft = load("zoo:target"), load("zoo:draft")
    policy = make_method("policy", "fixed", depth=4, nodes=4 * siblings, width=siblings)
    drafter = make_method("drafter", "draft_model", siblings=siblings)
    rule = "rejection" if siblings == 1 else "multi_round"
    settings = RunSettings(target, "def read(path):\n", drafter, rule, policy, sampling, 60, draft)
    ours = generate(settings)
    monkeypatch.setattr(type(policy), "steady", False)
    theirs = generate(settings)
    assert [r.tokens for r in ours.rounds] == [r.tokens for r in theirs.rounds]
    assert ours.text == theirs.text
    assert [r.forwards for r in ours.rounds] == [r.forwards for r in theirs.rounds]
    for mine, other in zip(ours.rounds, theirs.rounds, strict=True):
        assert mine.score == pytest.approx(other.score, abs=1e-5)


@pytest.mark.parametrize("way", ["module", "weight", "gone"])
def test_what_was_put_in_by_hand_is_noticed_at_once(way, loaded):
    model = loaded("llama").clone()
    session = model.session()
    session.forward([5])
    mlp = model.anatomy.layers[0].mlp
    assert model.native.ready(1)
    if way == "module":
        mlp._modules["up_proj"] = copy.deepcopy(mlp.up_proj)
    elif way == "weight":
        mlp.up_proj._parameters["weight"] = torch.nn.Parameter(2 * mlp.up_proj.weight)
    else:
        del mlp._modules["up_proj"]
    assert not model.native.ready(1)


def test_torch_compile_in_the_same_process_is_left_alone(loaded):
    """A hook of torch's that counts registrations would compile every call anew."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = loaded("llama").clone()
    session = model.session()
    quick = torch.compile(model.network, backend=backend, dynamic=False)
    with torch.inference_mode():
        for _ in range(3):
            session.forward([5])
            quick(input_ids=torch.tensor([[5]]), use_cache=False)
            count = len(graphs)
            quick(input_ids=torch.tensor([[5]]), use_cache=False)
            assert count == len(graphs) > 0


@pytest.mark.parametrize("count", [1, 31, 200])
def test_a_digest_notices_each_number_and_their_order(count):
    digest, weights = build.kernel().wb_digest, torch.randn(count)
    whole = digest(weights.data_ptr(), count)
    assert digest(weights.clone().data_ptr(), count) == whole
    for place in range(count):
        other = weights.clone()
        other[place] = torch.nextafter(other[place], torch.tensor(9.0))
        assert digest(other.data_ptr(), count) != whole
    turned = weights.flip(0).contiguous()
    assert count == 1 or digest(turned.data_ptr(), count) != whole
