"""What grows with what: a pass with its context, its rows and its model; a sweep with its workers.

Models for the context and size tables have random weights, because what they would say does not
change what they cost. Their weights are rounded to bfloat16, as published checkpoints are.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from workbench.bench.cost_curve import measure_curve
from workbench.bench.datasets import open_prompts
from workbench.bench.grid import Grid, Setting
from workbench.bench.sweep import Sweep
from workbench.core.inference import inference_mode
from workbench.engine.baseline import measure_plain
from workbench.models.anatomy import anatomy_of
from workbench.models.model import Model
from workbench.models.probe import choose_mode

CONTEXTS = (256, 1024, 4096, 16_384)
TREE_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# (width, layers, inner width): about 1, 3, 10, 30, 100 and 300 million parameters.
SHAPES = (
    (128, 2, 352),
    (192, 4, 512),
    (320, 8, 864),
    (512, 10, 1376),
    (768, 14, 2048),
    (1024, 24, 2752),
)


def random_model(
    like: Model, name: str, shape: tuple[int, int, int] | None = None, context: int = 4096
) -> Model:
    """A model of another size or context with the tokenizer of ``like`` and random weights."""
    from transformers import AutoModelForCausalLM

    config = type(like.network.config)(**like.network.config.to_dict())
    config.max_position_embeddings = context
    if shape is not None:
        width, layers, inner = shape
        config.hidden_size, config.num_hidden_layers = width, layers
        config.intermediate_size = inner
        config.head_dim = 32 if width < 512 else 64
        config.num_attention_heads = width // config.head_dim
        config.num_key_value_heads = max(1, config.num_attention_heads // 2)
        if getattr(config, "layer_types", None):
            config.layer_types = ["full_attention"] * layers
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)
    with inference_mode():
        for weight in network.parameters():
            weight.copy_(weight.bfloat16().float())
    model = Model(name, network, like.tokenizer, anatomy_of(network))
    choose_mode(model)
    return model


def by_context(like: Model, contexts: Sequence[int] = CONTEXTS) -> list[dict[str, Any]]:
    """Milliseconds of a pass of 1 and of 16 rows behind so many stored tokens.

    One session is filled once and cropped from the longest down, so contexts do not take turns.
    """
    model = random_model(like, "long context", context=max(contexts) + 64)
    session = model.session()
    top = model.known_tokens
    text = [(7 + 31 * k) % top for k in range(max(contexts))]
    session.sync(text)
    rows = []
    for context in sorted(contexts, reverse=True):
        session.crop(context)
        spent: dict[int, list[float]] = {1: [], 16: []}
        for repeat in range(8):
            for n, taken in spent.items():
                done = session.forward([5] * n, (-1, *(0,) * (n - 1)))
                if repeat:
                    taken.append(done.ms)
        medians = {f"ms_{n}_rows": statistics.median(taken) for n, taken in spent.items()}
        rows.append({"context": context, **medians})
    return rows[::-1]


def by_rows(model: Model, rows: Sequence[int] = TREE_ROWS, context: int = 256) -> list[dict]:
    """Milliseconds of a pass over a tree of so many rows, and what each row costs."""
    curve = measure_curve(model, rows, (context,))
    assert curve is not None
    one = curve.pass_ms(1)
    return [
        {"rows": n, "ms": ms, "ms_a_row": ms / n, "x_one_row": ms / one}
        for n, ms in zip(curve.rows, curve.ms[0], strict=True)
    ]


def by_size(
    like: Model, shapes: Sequence[tuple[int, int, int]] = SHAPES, tokens: int = 24
) -> list[dict[str, Any]]:
    """Milliseconds a token of plain decoding, ours and transformers', by parameters."""
    rows = []
    for shape in shapes:
        model = random_model(like, f"width {shape[0]}", shape)
        prompt = "def add(a, b):\n    return a + b\n"
        ids = torch.tensor([model.encode(prompt)])
        theirs: list[float] = []
        ours = []
        for repeat in range(4):
            began = time.perf_counter()
            model.network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
            spent = (time.perf_counter() - began) * 1e3 / tokens
            baseline = measure_plain(model, prompt, tokens=tokens, repeats=1)
            if repeat:
                theirs.append(spent)
                ours.append(baseline.ms_per_token)
        mine, other = statistics.median(ours), statistics.median(theirs)
        rows.append(
            {
                "parameters_m": model.parameters / 1e6,
                "ours_ms": mine,
                "transformers_ms": other,
                "ratio": other / mine,
                "pass": "compiled" if model.compiled else model.mode,
            }
        )
    return rows


def by_pass(model: Model, rows: Sequence[int] = (1, 16), repeats: int = 30) -> list[dict[str, Any]]:
    """Milliseconds of a pass of so many rows and no stored tokens, by what runs it, in turns.

    ``compile_s``: the first call of ``torch.compile``, with nothing compiled before; the kernel is
    compiled already.
    """
    torch.compiler.reset()
    torch_only = model.clone()
    torch_only.__dict__["native"] = None
    walked = dataclasses.replace(torch_only, mode="walk")
    compiled = torch.compile(model.network, dynamic=False)
    found = []
    for n in rows:
        text = [(7 + 31 * k) % model.known_tokens for k in range(n)]
        ids = torch.tensor([text])
        calls: dict[str, Callable[[], Any]] = {
            "transformers_ms": lambda ids=ids: model.network(input_ids=ids, use_cache=False),
            "torch_compile_ms": lambda ids=ids: compiled(input_ids=ids, use_cache=False),
        }
        for name, one in (("walk_ms", walked), ("fused_ms", torch_only), ("kernel_ms", model)):
            calls[name] = partial(one.session().forward, text)
        spent: dict[str, list[float]] = {name: [] for name in calls}
        with inference_mode():
            compile_s = _first_call_s(calls["torch_compile_ms"])
            for repeat in range(repeats + 1):
                for name, call in calls.items():
                    began = time.perf_counter()
                    call()
                    if repeat:
                        spent[name].append((time.perf_counter() - began) * 1e3)
        medians = {name: statistics.median(taken) for name, taken in spent.items()}
        found.append({"rows": n, **medians, "compile_s": compile_s})
    return found


def _first_call_s(call: Callable[[], Any]) -> float:
    """Seconds of a call that compiles, with nothing kept from earlier processes."""
    config = torch.compiler.config
    kept, config.force_disable_caches = config.force_disable_caches, True
    try:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    finally:
        config.force_disable_caches = kept


def by_workers(target: str = "zoo:draft", jobs: Sequence[int] = (1, 2)) -> list[dict[str, Any]]:
    """Measurements a minute of one sweep by number of processes, their start included."""
    grid = Grid(
        open_prompts("zoo:code"),
        (target,),
        drafters=("token_recycling", "prompt_lookup"),
        knobs=(("policy.depth", (2, 4, 6)),),
        repeats=4,
        setting=Setting(new_tokens=96, threads=1),
    )
    rows = []
    for count in jobs:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            *_, last = Sweep(grid, Path(folder) / "sweep", jobs=count).steps()
            minutes = (time.perf_counter() - began) / 60
        rows.append({"workers": count, "measurements": last.done, "a_minute": last.done / minutes})
    return rows
