"""``workbench bench peers``: this engine against transformers, interleaved in one process.

Same checkpoint, same prompts, same number of new tokens, EOS ignored on both sides. Every row is
run in turn for each prompt and repeat (A B C A B C ...), so drift of the machine hits all alike;
ratios are taken per prompt and repeat and reported as medians with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from workbench.core.errors import BadInput, at_least
from workbench.core.sampling import Sampling
from workbench.drafters.draft_model import DraftModel
from workbench.engine.run import Run, RunSettings, versions
from workbench.models.devices import device_of
from workbench.models.load import Model, load
from workbench.models.threads import set_threads
from workbench.policies.fixed import Fixed

OWN_AR = "ours: none"
COUNTERPART = {
    "ours: none": "transformers: generate",
    "ours: draft_model": "transformers: assisted",
    "ours: prompt_lookup": "transformers: prompt lookup",
    "ours: token_recycling": "transformers: generate",
}


@dataclass
class Row:
    """One decoder and what was measured of it: per call (seconds, tokens, target passes)."""

    name: str
    call: Callable[[list[int], str, int], tuple[list[int], int]]
    seconds: list[float] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)  # of logits, where greedy texts first differ


class CountingStreamer:
    """Counts how often transformers hands tokens over: once for the prompt, then once a pass."""

    def __init__(self) -> None:
        self.puts = -1

    def put(self, value) -> None:
        self.puts += 1

    def end(self) -> None:
        return None


def repeated_ratio(tokens: list[int], n: int = 4) -> float:
    """Share of n-grams that occurred before in the same text; looping text flatters every draft."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def transformers_row(name: str, model: Model, sampling: Sampling, new: int, **options) -> Row:
    """A row that calls ``generate``; ``options`` choose assisted or prompt-lookup decoding."""
    sampled = {} if sampling.greedy else {"temperature": sampling.temperature, "top_k": 0}

    def call(ids: list[int], prompt: str, seed: int) -> tuple[list[int], int]:
        torch.manual_seed(seed)
        streamer = CountingStreamer()
        output = model.network.generate(
            torch.tensor([ids], device=model.torch_device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.torch_device),
            do_sample=not sampling.greedy,
            max_new_tokens=new,
            eos_token_id=None,
            pad_token_id=0,
            streamer=streamer,
            **sampled,
            **options,
        )
        return output[0, len(ids) :].tolist(), max(1, streamer.puts)

    return Row(name, call)


def own_row(model: Model, draft: Model, drafter, policy, sampling: Sampling, new: int) -> Row:
    """A row of this engine; draft-model drafts are verified by rejection, others by matching."""
    verifier = "rejection" if drafter == "draft_model" else "exact_match"
    settings = RunSettings(
        model,
        "-",
        DraftModel() if drafter == "draft_model" else drafter,
        verifier,
        policy,
        sampling,
        new,
        draft if drafter == "draft_model" else None,
        record_top=0,
    )
    row = Row(f"ours: {drafter}", lambda ids, prompt, seed: ([], 0))

    def call(ids: list[int], prompt: str, seed: int) -> tuple[list[int], int]:
        seeded = Sampling(sampling.temperature, sampling.top_k, sampling.top_p, seed)
        run = Run(settings.change(prompt=prompt, sampling=seeded))
        run.decoding.eos_ids = frozenset()
        done = list(run.rounds())
        total = sum(r.ms.total for r in done)
        row.outside.append(1 - sum(r.forward_ms for r in done) / total)
        return [token for r in done for token in r.emitted], len(done)

    row.call = call
    return row


def build_rows(target: Model, draft: Model, sampling: Sampling, args) -> list[Row]:
    """All rows of one table."""
    new, k = args.new_tokens, args.draft_tokens
    draft.network.generation_config.num_assistant_tokens = k
    draft.network.generation_config.num_assistant_tokens_schedule = "constant"
    draft.network.generation_config.assistant_confidence_threshold = 0.0
    chain = Fixed(depth=k, nodes=k, width=1)
    tree = Fixed(depth=args.tree_depth, nodes=args.tree_nodes)
    return [
        transformers_row("transformers: generate", target, sampling, new),
        own_row(target, draft, "none", "fixed", sampling, new),
        transformers_row(
            "transformers: assisted", target, sampling, new, assistant_model=draft.network
        ),
        own_row(target, draft, "draft_model", chain, sampling, new),
        transformers_row(
            "transformers: prompt lookup",
            target,
            sampling,
            new,
            prompt_lookup_num_tokens=10,
            max_matching_ngram_size=3,
        ),
        own_row(target, draft, "prompt_lookup", Fixed(depth=10, nodes=10), sampling, new),
        own_row(target, draft, "token_recycling", tree, sampling, new),
    ]


def measure(rows: list[Row], model: Model, prompts: list[str], repeats: int, warm: bool) -> None:
    """Run every row on every prompt in turn; the first prompt is also the warm-up."""
    encoded = [model.encode(prompt) for prompt in prompts]
    if warm:
        for row in rows:
            row.call(encoded[0], prompts[0], 0)
            row.outside.clear()
    for repeat in range(repeats):
        for place, (ids, prompt) in enumerate(zip(encoded, prompts, strict=True)):
            order = rows if (repeat + place) % 2 == 0 else rows[::-1]
            for row in order:
                began = time.perf_counter()
                tokens, passes = row.call(ids, prompt, 1000 * repeat + place)
                row.seconds.append(time.perf_counter() - began)
                row.tokens.append(tokens)
                row.passes.append(passes)


def divergence_gap(model: Model, ids: list[int], a: list[int], b: list[int]) -> float | None:
    """How far the model's two likeliest logits lie apart where two greedy texts first differ.

    Rounding may turn over a gap of its own size; a larger gap means that one text is not the
    model's. None where the texts are the same.
    """
    same = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if same is None:
        return None
    seen = model.session().sync([*ids, *a[:same]])
    assert seen is not None  # a prompt is never empty
    first, second = seen.logits[-1].float().topk(2).values.tolist()
    return first - second


def note_gaps(rows: list[Row], model: Model, prompts: list[str], repeats: int) -> None:
    """Fill in each row's gaps against transformers' own greedy text."""
    plain = next(row for row in rows if row.name == "transformers: generate")
    encoded = [model.encode(prompt) for prompt in prompts] * repeats
    for row in rows:
        found = (
            divergence_gap(model, ids, own, other)
            for ids, own, other in zip(encoded, row.tokens, plain.tokens, strict=True)
        )
        row.gaps = [gap for gap in found if gap is not None]


def interval(values: list[float]) -> list[float]:
    """5 % and 95 % points of the bootstrapped median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (500, len(values))), axis=1)
    return [round(float(q), 3) for q in np.quantile(medians, (0.05, 0.95))]


def summarise(rows: list[Row], greedy: bool) -> list[dict]:
    """One dictionary a row, with the columns that the README and the notes quote."""
    by_name = {row.name: row for row in rows}
    plain = by_name["transformers: generate"]
    table = []
    for row in rows:
        against = by_name.get(COUNTERPART.get(row.name, "transformers: generate"), plain)
        rates = _rates(row)
        to_own = _ratios(rates, _rates(by_name[OWN_AR]))
        to_peer = _ratios(rates, _rates(against))
        same = sum(a == b for a, b in zip(row.tokens, plain.tokens, strict=True))
        table.append(
            {
                "row": row.name,
                "tokens_per_s": round(statistics.median(rates), 1),
                "mean_emitted": round(sum(map(len, row.tokens)) / sum(row.passes), 3),
                "ratio_to_own_ar": round(statistics.median(to_own), 3),
                "ratio_to_own_ar_interval": interval(to_own),
                "ratio_to_transformers": round(statistics.median(to_peer), 3),
                "ratio_to_transformers_interval": interval(to_peer),
                "compared_with": against.name,
                "same_tokens": f"{same}/{len(row.tokens)}" if greedy else None,
                "largest_divergence_gap": max(row.gaps, default=None),
                "repeated_4gram_ratio": round(
                    statistics.fmean(repeated_ratio(t) for t in row.tokens), 3
                ),
                "outside_forward_ratio": round(statistics.fmean(row.outside), 3)
                if row.outside
                else None,
            }
        )
    return table


def _rates(row: Row) -> list[float]:
    return [len(t) / s for t, s in zip(row.tokens, row.seconds, strict=True)]


def _ratios(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``workbench bench peers``."""
    parser.add_argument("--model", default="zoo:target", help="target checkpoint")
    parser.add_argument("--draft", default="zoo:draft", help="draft checkpoint")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--draft-device", help="where the draft stands (the target's)")
    parser.add_argument("--kind", default="code", help="kind of held-out prompt")
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--draft-tokens", type=int, default=5, help="draft length K, both sides")
    parser.add_argument("--tree-nodes", type=int, default=16, help="token recycling's nodes")
    parser.add_argument("--tree-depth", type=int, default=6, help="token recycling's depth")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    from workbench.zoo.held_out import prompts as held_out

    at_least(1, repeats=args.repeats, new_tokens=args.new_tokens)
    set_threads(args.threads)
    texts = [p.text for p in held_out() if args.kind in (p.kind, "all")]
    if not texts:
        kinds = sorted({p.kind for p in held_out()})
        raise BadInput(f"kind={args.kind!r}: one of {', '.join(kinds)} or all")
    if args.draft_device is not None:
        device_of(args.draft_device, "--draft-device")
    target = load(args.model, device=args.device, dtype=args.dtype)
    draft = load(args.draft, device=args.draft_device or args.device, dtype=args.dtype)
    report: dict = {
        "model": target.name,
        "draft": draft.name,
        "device": target.device,
        "draft_device": draft.device,
        "dtype": target.dtype,
        "threads": args.threads,
        "prompts": len(texts),
        "repeats": args.repeats,
        "new_tokens": args.new_tokens,
        "versions": versions(),
        "tables": {},
    }
    for temperature in args.temperatures:
        sampling = Sampling(temperature)
        for label, model, rows in (
            (target.name, target, build_rows(target, draft, sampling, args)),
            (draft.name, draft, build_rows(draft, draft, sampling, args)[:2]),
        ):
            measure(rows, model, texts, args.repeats, warm=True)
            if sampling.greedy:
                note_gaps(rows, model, texts, args.repeats)
            report["tables"][f"{label} T={temperature:g}"] = summarise(rows, sampling.greedy)
    print(json.dumps(report, indent=1) if args.json else as_text(report))
    return 0


def _gap(gap: float | None) -> str:
    if gap is None:
        return ""
    return f", first differences at top-1/top-2 gaps up to {gap:.2g}"


def as_text(report: dict) -> str:
    """A readable table."""
    head = (
        f"{report['model']} with {report['draft']}, {report['dtype']} on {report['device']},"
        f" {report['threads']} thread(s), {report['prompts']} prompts x {report['repeats']}"
    )
    lines = [head]
    for name, table in report["tables"].items():
        lines += ["", name, f"{'':30}{'tok/s':>8}{'emitted':>9}{'x own':>8}{'x peer':>8}  same"]
        for row in table:
            lines.append(
                f"{row['row']:30}{row['tokens_per_s']:8.1f}{row['mean_emitted']:9.2f}"
                f"{row['ratio_to_own_ar']:8.2f}{row['ratio_to_transformers']:8.2f}"
                f"  {row['same_tokens'] or '-':6}  4-grams repeated"
                f" {row['repeated_4gram_ratio']:.0%}" + _gap(row["largest_divergence_gap"])
            )
    return "\n".join(lines)
