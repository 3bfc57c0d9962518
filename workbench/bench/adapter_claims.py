"""What the adapter papers claim, on the embedded target and minutes of training.

Every comparison is paired over held-out rows of the text that was learnt (or over layers), and
judged like all claims: the whole 95 % interval of the difference must be on the claim's side. Each
method has one learning rate, the usual one for its kind, and none was tuned on these texts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from workbench.bench.judging import judged
from workbench.core.inference import inference_mode
from workbench.core.method import make_method
from workbench.models.adapting import Adapters
from workbench.models.load import load
from workbench.training.adapter import AdapterSettings, train_adapter
from workbench.training.realign import RealignSettings, realign
from workbench.training.texts import Texts, read_texts

STEPS, BATCH_ROWS, HELD_ROWS, ROW_TOKENS = 40, 4, 24, 96
TASKS = ("asyncio", "email")
SEEDS = 5  # where the seed moves a result as much as what is compared
PREFIX_RATE = 1e-2
Tell = Callable[[str], None]


class _Trained(NamedTuple):
    """An adapter as a value, and its loss on every held-out row ``[b]`` in nats a token."""

    config: Any
    tensors: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]
    losses: np.ndarray
    parameters: int


class _Bench:
    """The embedded target, its texts, and adapters that are trained once."""

    def __init__(self, tell: Tell, steps: int = STEPS, model: str = "zoo:target"):
        self.model, self.tell, self.steps = load(model), tell, steps
        self.adapters = Adapters(self.model)
        self.texts: dict[str, Texts] = {}
        self._made: dict[tuple, _Trained] = {}

    def text(self, task: str) -> Texts:
        if task not in self.texts:
            found = read_texts(task, self.model, row_tokens=ROW_TOKENS, most_tokens=80_000)
            self.texts[task] = found._replace(held_out=found.held_out[:HELD_ROWS])
        return self.texts[task]

    @inference_mode()
    def losses(self, task: str) -> np.ndarray:
        """Mean loss of every held-out row with what is attached now."""
        rows = self.text(task).held_out
        logits = self.model.network(input_ids=rows, use_cache=False).logits[:, :-1].float()
        every = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        return every.view(len(rows), -1).mean(1).double().numpy()

    def trained(
        self, method: str, task: str = TASKS[0], rate: float = 3e-3, seed: int = 0, **knobs: Any
    ) -> _Trained:
        """Train an adapter on the same rows as every other of its seed; then take it off."""
        key = (method, task, rate, seed, *sorted(knobs.items()))
        if key in self._made:
            return self._made[key]
        made = make_method("adapter", method, **knobs)
        self.tell(f"training {method} {knobs or ''} on {task}{f', seed {seed}' if seed else ''}")
        self.adapters.detach()
        self.adapters.attach(made.config(self.adapters.shapes), "one", seed)
        plan = AdapterSettings(
            steps=self.steps,
            batch_rows=BATCH_ROWS,
            learning_rate=rate,
            measure_steps=self.steps,
            measure_rows=2,
            seed=seed,
        )
        with tempfile.TemporaryDirectory() as folder:
            train_adapter(self.adapters, "one", made, self.text(task), plan, Path(folder))
        found = _Trained(
            self.adapters.config("one"),
            self.adapters.state("one"),
            self.adapters.start("one"),
            self.losses(task),
            self.adapters.parameter_count("one"),
        )
        self.adapters.detach()
        self._made[key] = found
        return found

    def by_seed(self, method: str, **knobs: Any) -> np.ndarray:
        """Minus the mean held-out loss for each of the seeds."""
        every = (self.trained(method, seed=seed, **knobs) for seed in range(SEEDS))
        return np.array([-one.losses.mean() for one in every])

    def put(self, one: _Trained, name: str) -> None:
        self.adapters.put(one.config, one.tensors, name, one.start)


def _row(method: str, says: str, first: Any, second: Any, because: str, unit: str = "") -> dict:
    row = judged(np.asarray(first), np.asarray(second))
    return {
        "method": method,
        "says": says,
        "unit": unit or "minus held-out nats a token",
        **row,
        "because": "" if row["verdict"] == "holds" else because,
    }


def _lora(bench: _Bench) -> list[dict]:
    base, lora = bench.losses(TASKS[0]), bench.trained("lora")
    share = lora.parameters / bench.model.parameters
    says = f"Training {share:.1%} of the parameters adapts the model (2106.09685)."
    return [_row("lora", says, -lora.losses, -base, f"{bench.steps} steps are few")]


def _ia3(bench: _Bench) -> list[dict]:
    base = bench.losses(TASKS[0])
    ia3, lora = bench.trained("ia3", rate=3e-2), bench.trained("lora")
    says = f"{ia3.parameters:,} factors adapt the model (2205.05638)."
    better = "IA3 beats LoRA, which has many times its parameters (2205.05638)."
    return [
        _row("ia3", says, -ia3.losses, -base, f"{bench.steps} steps are few"),
        _row(
            "ia3",
            better,
            -ia3.losses,
            -lora.losses,
            "the paper compares few-shot tasks on an 11 B model; here more parameters fit more",
        ),
    ]


def _prefix(bench: _Bench) -> list[dict]:
    base, lora = bench.losses(TASKS[0]), bench.trained("lora")
    words = bench.trained("prefix", rate=PREFIX_RATE)
    chance = bench.trained("prefix", rate=PREFIX_RATE, words=False)
    draft, accepted = load("zoo:draft"), []
    for one in (words, lora):
        bench.adapters.detach()
        bench.put(one, "one")
        accepted.append(_accepted(bench, TASKS[0], draft))
    bench.adapters.detach()
    share = words.parameters / bench.model.parameters
    says = f"A prefix of 16 tokens ({share:.1%} of the parameters) adapts the model (2101.00190)."
    real = "A prefix that starts from real words beats one that starts at random (2101.00190)."
    over = "LoRA beats prefix tuning (2106.09685)."
    kept = "A draft that knows nothing of it is accepted more after a prefix than after LoRA."
    few = f"{bench.steps} steps are few"
    why = "both change the target too little for it to matter"
    return [
        _row("prefix", says, -words.losses, -base, few),
        _row("prefix", real, -words.losses, -chance.losses, few),
        _row("lora", over, -lora.losses, -words.losses, few),
        _row("prefix", kept, accepted[0], accepted[1], why, "expected acceptance"),
    ]


def _mola(bench: _Bench) -> list[dict]:
    up, down = bench.by_seed("mola", experts="1,2,3,4"), bench.by_seed("mola", experts="4,3,2,1")
    mixture, one = bench.trained("mola", experts="1,2,3,4"), bench.trained("lora")
    plain = make_method("adapter", "lora")
    rank = round(plain.r * mixture.parameters / one.parameters)
    lora = bench.by_seed("lora", r=rank, alpha=plain.alpha / plain.r * rank)
    says = (
        f"More experts in higher layers beat more in lower ones, at equal total, {SEEDS} seeds with"
        f" a spread of {up.std(ddof=1):.3f} and {down.std(ddof=1):.3f} nats (2402.08562)."
    )
    over = (
        f"A mixture of LoRAs beats one LoRA of as many parameters (rank {rank}), {SEEDS} seeds"
        " (2402.08562)."
    )
    small = "few layers and a short training leave the profiles nearly equal"
    return [
        _row("mola", says, up, down, small),
        _row("mola", over, up, lora, "routers start flat and learn late"),
    ]


def _increlora(bench: _Bench) -> list[dict]:
    steps = bench.steps
    interval = max(1, steps // 20)
    grown = bench.trained("increlora", warmup=steps // 10, interval=interval, top=6)
    # alpha / rank of the start is the factor of an update: 8 / 1 for what grows, so 32 / 4 here
    flat = bench.trained("increlora", start=4, target_rank=4.0, alpha=32.0)
    says = (
        "Ranks handed out while training beat a uniform rank, total and scale alike (2308.12043)."
    )
    why = "growth takes steps that a uniform rank trains from the start, and there are few"
    return [_row("increlora", says, -grown.losses, -flat.losses, why)]


def _compeft(bench: _Bench) -> list[dict]:
    base, lora = bench.losses(TASKS[0]), bench.trained("lora")
    best: tuple[float, np.ndarray, dict] | None = None
    for alpha in (0.5, 1.0, 1.5, 2.0, 3.0):
        bench.adapters.detach()
        bench.put(lora, "one")
        facts = make_method("operation", "compeft", keep=0.2, alpha=alpha).combine(
            bench.adapters, ["one"], "small"
        )
        bench.adapters.set_active(["small"])
        losses = bench.losses(TASKS[0])
        if best is None or losses.mean() < best[0]:
            best = (float(losses.mean()), losses, facts)
    bench.adapters.detach()
    assert best is not None  # five were tried
    _, losses, facts = best
    ratio = facts["bytes_fp16"] / facts["bytes"]
    gain = base - losses
    half = 0.5 * (base - lora.losses)
    says = f"{ratio:.0f} times smaller, the adapter keeps most of what it gained (2311.13171)."
    why = "small models compress badly, as the paper says itself"
    return [_row("compeft", says, gain, half, why, "nats gained, against half of the whole gain")]


def _breadcrumbs(bench: _Bench) -> list[dict]:
    first, second = (bench.trained("lora", task, targets="all linear") for task in TASKS)

    def together(operation: str, **knobs: Any) -> np.ndarray:
        bench.adapters.detach()
        bench.put(first, "one")
        bench.put(second, "two")
        made = make_method("operation", operation, **knobs)
        made.combine(bench.adapters, ["one", "two"], "both")
        bench.adapters.set_active(["both"])
        return np.concatenate([bench.losses(task) for task in TASKS])

    crumbs = together("breadcrumbs", alpha=1.0)
    plain = together("merge", way="cat", weights="1,1")
    bench.adapters.detach()
    says = "Without both tails two adapters add up better than whole, both times 1 (2312.06795)."
    why = "two families of one language hardly disturb each other: the whole sum serves both"
    return [_row("breadcrumbs", says, -crumbs, -plain, why)]


def _realigned(bench: _Bench) -> list[dict]:
    """The link that no paper has: the draft after an adapter, taught for a few steps."""
    draft, task = load("zoo:draft"), TASKS[0]
    bench.adapters.detach()
    bench.put(bench.trained("lora"), "one")
    plan = RealignSettings(
        steps=max(4, bench.steps // 2), batch_rows=BATCH_ROWS, measure_steps=1000
    )
    done = realign(bench.model, draft, bench.text(task), plan)
    sides = [_accepted(bench, task, one) for one in (done.draft, draft)]
    bench.adapters.detach()
    says = "A draft distilled from the adapted target is accepted more (2310.08461)."
    why = f"{plan.steps} steps are few"
    return [_row("lora", says, sides[0], sides[1], why, "expected acceptance")]


@inference_mode()
def _accepted(bench: _Bench, task: str, draft: Any) -> np.ndarray:
    """Mean over places of sum min(p, q) of every row."""
    rows = bench.text(task).held_out
    p, q = (
        one.network(input_ids=rows, use_cache=False).logits.float().softmax(-1)
        for one in (bench.model, draft)
    )
    return torch.minimum(p, q).sum(-1).mean(1).double().numpy()


def rows(tell: Tell, steps: int = STEPS) -> list[dict[str, Any]]:
    """Every claim about adapters, measured.

    Cost: about thirty trainings of ``steps`` steps.
    """
    bench, found = _Bench(tell, steps), []
    for part in (_lora, _ia3, _prefix, _mola, _increlora, _compeft, _breadcrumbs, _realigned):
        found += part(bench)
    return found
