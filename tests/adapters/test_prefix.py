"""Virtual tokens: a session with them is peft's own forward, to the last row of a tree."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModelForCausalLM

from workbench.core.errors import BadInput, ModelError
from workbench.core.sampling import Sampling
from workbench.core.span import Span
from workbench.engine.dials import held_out, weight_bytes
from workbench.engine.run import Run, RunSettings
from workbench.models.adapter_forms import peft_config
from workbench.models.adapting import Adapters
from workbench.models.session import Session
from workbench.models.twin import Twin
from workbench.models.walk import FusedWalk

N = 5
KINDS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
FAMILIES = (
    ("llama", "fused"),
    ("llama", "walk"),
    ("llama", "stock"),
    ("gpt2", None),
    ("opt", None),
)
PARENT = (-1, 0, 0, 1, 2, 1, 4, 3)
TEXT = torch.randint(0, 256, (24,), generator=torch.Generator().manual_seed(2)).tolist()


def path_to(row: int) -> list[int]:
    return [] if row < 0 else [*path_to(PARENT[row]), row]


def plain_peft(model, kind: str, count: int = N):
    """The model of plain peft, over weights of its own; its tokens are far from where they began.

    Large values: a wrong position or a mask that hides them shows in the logits.
    """
    network = copy.deepcopy(model.network)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = peft_config(kind, num_virtual_tokens=count, task_type="CAUSAL_LM")
        return PeftModelForCausalLM(network, config).eval().requires_grad_(False)


def put_on(adapters: Adapters, peft_model, name: str = "p") -> None:
    """The same tokens, by way of the workbench."""
    kind = str(peft_model.peft_config["default"].peft_type.value)
    adapters.attach(peft_config(kind, num_virtual_tokens=N), name)
    encoder = adapters._known(name).holder.prompt_encoder[name]
    encoder.load_state_dict(peft_model.prompt_encoder["default"].state_dict())


@torch.inference_mode()
def peft_rows(peft_model, text) -> torch.Tensor:
    """Logits of every token of the text by peft's own forward, ``[t v]``."""
    found = peft_model(input_ids=torch.tensor([list(text)])).logits[0]
    return found[-len(text) :]


def close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool(((got - wanted).abs().max() / wanted.std()) < 1e-5)


def check_session(session: Session, peft_model) -> None:
    """Chain, tree, committed path, crop, another text: each is peft's plain forward."""
    text, rows = TEXT[:10], TEXT[10:18]
    assert close(session.sync(text).logits[-1], peft_rows(peft_model, text)[-1])
    tree = session.forward(rows, PARENT).logits
    for row in range(len(rows)):
        wanted = peft_rows(peft_model, text + [rows[r] for r in path_to(row)])[-1]
        assert close(tree[row], wanted), row
    session.commit(path_to(6))
    assert session.tokens == text + [rows[r] for r in path_to(6)]
    wanted = peft_rows(peft_model, [*session.tokens, 3])[-1]
    assert close(session.forward([3]).logits[-1], wanted), "after commit"
    session.crop(4)
    wanted = peft_rows(peft_model, TEXT[:4] + TEXT[18:])[4:]
    assert close(session.forward(TEXT[18:]).logits, wanted), "after crop"
    with session.scratch():
        session.sync([*TEXT[:4], 1, 2])
    session.crop(0)
    assert close(session.forward(TEXT[:6]).logits, peft_rows(peft_model, TEXT[:6])), "anew"


@pytest.fixture
def bare(loaded):
    """``bare(family, mode)``: a model, its adapters, and a way back."""
    opened = []

    def get(family: str, mode: str | None = None):
        heads = {"num_key_value_heads": 4} if family == "gpt2" else {}  # peft believes the config
        model = loaded(family, **heads)
        adapters = Adapters(model)
        opened.append((adapters, model.mode))
        return model, adapters

    yield get
    for adapters, mode in opened:
        adapters.detach()
        assert adapters.model.mode == mode


@pytest.mark.parametrize(("family", "mode"), FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_session_is_pefts_own_forward(bare, family, mode, kind):
    model, adapters = bare(family)
    peft_model = plain_peft(model, kind)
    before = model.context_tokens
    put_on(adapters, peft_model)
    assert model.trees and (mode is None or model.mode == "fused")
    model.mode = mode or model.mode
    assert model.context_tokens == before - N and "5 virtual tokens" in model.context_reason
    check_session(model.session(), peft_model)
    with torch.inference_mode():
        ids = torch.tensor([TEXT, TEXT[::-1]])
        wanted = peft_model(input_ids=ids).logits[:, -len(TEXT) :]
        assert close(model.network(input_ids=ids, use_cache=False).logits, wanted)
        first = model.network(input_ids=ids[:, :20])  # it stores, and goes on from there
        rest = model.network(input_ids=ids[:, 20:], past_key_values=first.past_key_values)
        assert close(rest.logits, wanted[:, 20:])


def test_text_that_starts_at_position_0_is_caught(bare, monkeypatch):
    model, adapters = bare("llama")
    peft_model = plain_peft(model, "PREFIX_TUNING")
    put_on(adapters, peft_model)
    honest, kept = FusedWalk.rotary_tables, []

    def unshifted(self, like, end):
        kept.append([table.roll(N, 0) for table in honest(self, like, end)])
        return kept[-1]

    check_session(model.session(), peft_model)
    monkeypatch.setattr(FusedWalk, "rotary_tables", unshifted)
    with pytest.raises(AssertionError):
        check_session(model.session(), peft_model)


def test_parts_of_a_pass_go_on_as_one(bare):
    model, adapters = bare("llama")
    peft_model = plain_peft(model, "PREFIX_TUNING")
    put_on(adapters, peft_model)
    session = model.session()
    session.sync(TEXT[:6])
    session.ascend(TEXT[6:9], 2)
    session.ascend(TEXT[9:10], 2)
    resumed = session.forward(TEXT[6:12]).logits
    assert close(resumed, peft_rows(peft_model, TEXT[:12])[6:])
    session.forward(TEXT[6:9], span=Span.of(range(1, 3)))  # skips a layer, then nothing is left
    session.crop(6)
    assert close(session.forward(TEXT[6:9]).logits, peft_rows(peft_model, TEXT[:9])[6:])
    session.forward(TEXT[6:8])
    grown = session.forward(TEXT[8:10], (1, 2), grow=True).logits
    assert close(grown, peft_rows(peft_model, TEXT[:10])[8:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drafter", ["prompt_lookup", "draft_model", "token_recycling", "pruned"])
def test_greedy_speculation_is_pefts_own_generate(bare, kind, drafter):
    if kind != "PREFIX_TUNING" and drafter != "prompt_lookup":
        return
    model, adapters = bare("llama")
    peft_model = plain_peft(model, kind)
    put_on(adapters, peft_model)
    prompt = "abcabcabc"
    ids = torch.tensor([model.encode(prompt)])
    whole = peft_model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24
    )
    settings = RunSettings(
        model, prompt, drafter, "exact_match", "fixed", Sampling(0), 24, draft_model=model
    )
    run = Run(settings)
    rounds = list(run.rounds())
    assert list(run.trace().new_tokens) == whole[0, -24:].tolist()
    if drafter == "draft_model":  # the same model drafts: its tokens stand there too
        assert len(rounds) < 12


@pytest.mark.parametrize("kind", KINDS)
def test_off_and_gone_are_the_base_bit_for_bit(bare, kind):
    model, adapters = bare("llama")
    base = model.session()
    wanted = base.forward(TEXT).logits
    room, size = model.context_tokens, weight_bytes(model)
    put_on(adapters, plain_peft(model, kind))
    assert weight_bytes(model) > size
    for off in (lambda: adapters.set_active([]), lambda: adapters.set_strength("p", 0.0)):
        off()
        assert torch.equal(model.session().forward(TEXT).logits, wanted)
        assert model.context_tokens == room
        adapters.set_active(["p"])
    adapters.set_strength("p", 1.0)
    assert not torch.equal(model.session().forward(TEXT).logits, wanted)
    adapters.detach()
    assert torch.equal(model.session().forward(TEXT).logits, wanted)
    assert model.context_tokens == room and weight_bytes(model) == size


def test_a_session_keeps_what_it_began_with(bare):
    model, adapters = bare("llama")
    early = model.session()
    early.sync(TEXT[:8])
    wanted = early.forward(TEXT[8:]).logits
    peft_model = plain_peft(model, "PREFIX_TUNING")
    put_on(adapters, peft_model)
    for mode in ("fused", "stock"):
        model.mode = mode
        late = model.session()
        late.sync(TEXT[:8])
        assert close(early.forward(TEXT[8:]).logits, wanted)
        adapters.set_active([])
        assert close(late.forward(TEXT[8:]).logits, peft_rows(peft_model, TEXT)[8:])
        adapters.set_active(["p"])


def test_room_is_less_by_the_virtual_tokens(bare):
    model, adapters = bare("gpt2")
    put_on(adapters, plain_peft(model, "PREFIX_TUNING"))
    most = model.context_tokens
    session = model.session()
    session.sync([1] * most)
    with pytest.raises(BadInput, match="less 5 virtual tokens"):
        session.forward([1])
    with pytest.raises(ModelError, match="generate"):
        model.network.generate(torch.tensor([TEXT]), max_new_tokens=2)


def test_a_copy_has_its_own(bare):
    model, adapters = bare("llama")
    peft_model = plain_peft(model, "PREFIX_TUNING")
    put_on(adapters, peft_model)
    twin, _ = Twin(model).changed("same", lambda made: (made, 1.0))
    adapters.set_active([])
    assert twin is not model and twin.context_tokens == model.context_tokens - N
    check_session(twin.session(), peft_model)
    rows = torch.tensor([TEXT])
    loss = torch.nn.functional.cross_entropy(peft_rows(peft_model, TEXT)[:-1], rows[0, 1:])
    assert held_out(twin, rows)[0] == pytest.approx(float(loss), rel=1e-5)
