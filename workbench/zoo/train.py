"""Train an embedded model: one plain loop, resumable, the same on a CPU and on a GPU.

Matrices inside the layers are updated by Muon (orthogonalised momentum, the step's size matched to
AdamW's), everything else by AdamW; the rate warms up and then falls linearly to zero. Muon needs
fewer tokens for a given loss than AdamW alone, which is what counts where tokens are slow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from workbench.core.losses import balance_loss, router_z_loss
from workbench.models.routers import router_logits, routers_of
from workbench.zoo.corpus import TokenisedCorpus, epoch_rows
from workbench.zoo.recipe import Recipe

CAP_TOKENS = 30_000


@dataclass(frozen=True)
class TrainSettings:
    """How much to train and on what: tokens in total, rows a step, tokens a row."""

    total_tokens: int
    batch_rows: int = 16
    row_tokens: int = 256
    device: str = "cpu"
    bf16: bool = True
    compile: bool = False
    checkpoint_every_s: float = 300.0

    @property
    def steps(self) -> int:
        return max(1, self.total_tokens // (self.batch_rows * self.row_tokens))


class BatchStream:
    """Endless, deterministic batches: the step number alone decides what step sees."""

    def __init__(self, corpus: TokenisedCorpus, settings: TrainSettings, seed: int):
        self._documents = corpus.parts["train"]
        self._settings, self._seed = settings, seed
        self._epoch, self._rows, self._first_step = -1, np.empty((0, 0), np.uint16), 0

    def batch(self, step: int) -> torch.Tensor:
        """``[batch_rows, row_tokens + 1]`` int64 ids of one step; steps must not go backwards."""
        size = self._settings.batch_rows
        while step >= self._first_step + len(self._rows) // size:
            self._first_step += len(self._rows) // size
            self._epoch += 1
            rng = np.random.default_rng([self._seed, self._epoch])
            self._rows = epoch_rows(self._documents, self._settings.row_tokens, rng, CAP_TOKENS)
        start = (step - self._first_step) * size
        return torch.from_numpy(self._rows[start : start + size].astype(np.int64))


def exit_hiddens(model, ids, skip: set[int], exits: set[int]) -> dict[int, torch.Tensor]:
    """Walk the layers, leaving out ``skip``; the normed hidden after each layer in ``exits``.

    Shapes: ids ``[b t]``; each value ``[b t d]``. Exit l means "after layer l" (0-based).
    """
    core = model.model
    hidden = core.embed_tokens(ids)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    rotary = core.rotary_emb(hidden, positions)
    found = {}
    for index, layer in enumerate(core.layers):
        if index not in skip:
            hidden = layer(hidden, position_embeddings=rotary, attention_mask=None)
        if index in exits:
            found[index] = core.norm(hidden)
    return found


def token_loss(model, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of the next token, through the model's own head."""
    logits = model.lm_head(hidden).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build_optimisers(model, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices; AdamW for experts, embeddings, routers and norms.

    All but the matrices and experts is undecayed (the embedding is also the head).
    """
    routers = {id(p) for gate in routers_of(model).values() for p in gate.parameters()}
    inner = list(model.model.layers.parameters())
    matrices = [p for p in inner if p.ndim == 2 and id(p) not in routers]
    experts = [p for p in inner if p.ndim == 3]  # stacked matrices, which Muon does not take
    inside = {id(p) for p in [*matrices, *experts]}
    rest = [p for p in model.parameters() if id(p) not in inside]
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = [{"params": rest, "weight_decay": 0.0}]
    if experts:
        groups.append({"params": experts, "weight_decay": recipe.weight_decay})
    adamw = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), eps=1e-8)
    return [muon, adamw]


def rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then linear decay to zero at the last step."""
    return min((step + 1) / warmup_steps, (steps - step) / max(1, steps - warmup_steps), 1.0)


def train_step(model, batch, recipe: Recipe, step: int, rng: np.random.Generator, bf16: bool):
    """Forward and backward of one batch; returns the full-depth loss (a 0-d tensor)."""
    layers = len(model.model.layers)
    last = layers - 1
    chance = recipe.layer_dropout * (2 ** (np.arange(layers) / max(1, last)) - 1)
    skip = set(np.flatnonzero(rng.random(layers) < chance).tolist())
    early = step % layers if recipe.exit_scale and step % layers != last else None
    exits = {last} if early is None else {last, early}
    inputs, targets = batch[:, :-1], batch[:, 1:]
    autocast = torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16)
    with autocast, router_logits(model) as routed:
        hiddens = exit_hiddens(model, inputs, skip, exits)
        full = token_loss(model, hiddens[last], targets)
        total = full
        if early is not None:
            weight = recipe.exit_scale * (early + 1) / layers
            total = (full + weight * token_loss(model, hiddens[early], targets)) / (1 + weight)
    if routed:
        total = total + router_loss(routed, model.config.num_experts_per_tok, recipe)
    total.backward()
    return full.detach()


def router_loss(routed: Mapping[int, torch.Tensor], k: int, recipe: Recipe) -> torch.Tensor:
    """What the recipe adds for a mixture's routers: each term averaged over the layers."""
    balance = torch.stack([balance_loss(logits, k) for logits in routed.values()]).mean()
    size = torch.stack([router_z_loss(logits) for logits in routed.values()]).mean()
    return recipe.balance_loss * balance + recipe.router_z_loss * size


def save_state(folder: Path, model, optimisers, progress: dict) -> None:
    """Write a checkpoint (safetensors and JSON, no pickle) that ``load_state`` resumes from."""
    from safetensors.torch import save_file

    tensors = {f"model.{k}": v.detach().contiguous() for k, v in model.model.state_dict().items()}
    for number, optimiser in enumerate(optimisers):
        for index, slots in optimiser.state_dict()["state"].items():
            for key, value in slots.items():
                tensors[f"optimiser.{number}.{index}.{key}"] = torch.as_tensor(value).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "state.partial")
    (folder / "state.partial").replace(folder / "state.safetensors")
    (folder / "progress.json").write_text(json.dumps(progress))


def load_state(folder: Path, model, optimisers) -> dict:
    """Restore what ``save_state`` wrote; returns its progress record."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "state.safetensors")
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.model.load_state_dict(weights)
    for number, optimiser in enumerate(optimisers):
        state: dict = {}
        for name, value in tensors.items():
            if name.startswith(f"optimiser.{number}."):
                _, _, index, key = name.split(".", 3)
                state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return json.loads((folder / "progress.json").read_text())


def train(
    recipe: Recipe,
    corpus: TokenisedCorpus,
    settings: TrainSettings,
    checkpoint: Path,
    report: Callable[[dict], None] = lambda progress: None,
) -> tuple[torch.nn.Module, dict]:
    """Train to ``settings.total_tokens``, resuming from ``checkpoint`` where it holds a state.

    Args:
        report: called after every step with step, steps, loss, tokens_per_s and eta_s.

    Returns:
        The model (fp32) and its progress: ``curve`` of (tokens, loss) and ``seconds`` trained.
    """
    from transformers import AutoModelForCausalLM

    torch.manual_seed(recipe.seed)
    model = AutoModelForCausalLM.from_config(recipe.config()).to(settings.device)
    optimisers = build_optimisers(model, recipe)
    progress = {"step": 0, "curve": [], "seconds": 0.0}
    if (checkpoint / "progress.json").exists():
        progress = load_state(checkpoint, model, optimisers)
    if settings.compile:
        for layer in model.model.layers:
            layer.compile()
    stream = BatchStream(corpus, settings, recipe.seed)
    step_tokens = settings.batch_rows * settings.row_tokens
    saved_at, recent = time.monotonic(), []
    model.train()
    for step in range(progress["step"], settings.steps):
        began = time.monotonic()
        rng = np.random.default_rng([recipe.seed, step, 1])
        batch = stream.batch(step).to(settings.device)
        factor = rate_factor(step, settings.steps, recipe.warmup_steps)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * factor
        recent.append(train_step(model, batch, recipe, step, rng, settings.bf16))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        progress["step"] = step + 1
        if (step + 1) % 20 == 0 or step + 1 == settings.steps:
            loss = torch.stack(recent).mean().item()
            progress["curve"].append([(step + 1) * step_tokens, round(loss, 4)])
            recent = []
        progress["seconds"] += time.monotonic() - began
        report(progress_line(progress, settings, time.monotonic() - began))
        if time.monotonic() - saved_at > settings.checkpoint_every_s:
            save_state(checkpoint, model, optimisers, progress)
            saved_at = time.monotonic()
    save_state(checkpoint, model, optimisers, progress)
    return model, progress


def progress_line(progress: dict, settings: TrainSettings, step_s: float) -> dict:
    """What ``report`` receives after a step."""
    done = progress["step"]
    mean_s = progress["seconds"] / max(1, done)
    return {
        "step": done,
        "steps": settings.steps,
        "loss": progress["curve"][-1][1] if progress["curve"] else None,
        "tokens_per_s": settings.batch_rows * settings.row_tokens / step_s,
        "eta_s": mean_s * (settings.steps - done),
    }
