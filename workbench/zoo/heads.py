"""Train the heads that come with the embedded models.

Those that draft learn on text that the target writes itself; the recurrent router of the mixture
learns on the corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.models.corpus import SourceFile
from workbench.models.load import load
from workbench.training.features import Features, write_features
from workbench.training.outputs import OutputSettings, write_outputs
from workbench.zoo.corpus import TokenisedCorpus, epoch_rows, tokenise

TAPS = ("final", "2")
HELD_OUT_ROWS = 256
ROUTER_HEAD = "recurrent"
ROUTER_ROW_TOKENS, ROUTER_HELD_ROWS = 128, 192
Report = Callable[[str], None]


def task_of(name: str, draft: Callable[[], Any]) -> tuple[Any, Any]:
    """The task and the settings of one head; ``draft`` loads the draft model where it is needed."""
    from workbench.training.eagle import EagleTask
    from workbench.training.head_trainer import HeadSettings
    from workbench.training.hydra import HydraTask
    from workbench.training.kangaroo import KangarooTask
    from workbench.training.medusa import MedusaTask
    from workbench.training.specdec_pp import SpecDecPPTask

    if name == "medusa":
        return MedusaTask(), HeadSettings()
    if name == "eagle":
        return EagleTask(), HeadSettings(learning_rate=1.5e-3)
    if name == "hydra":
        return HydraTask(), HeadSettings(learning_rate=1.5e-3)
    if name == "kangaroo":
        return KangarooTask(), HeadSettings(epochs=1.5)
    return SpecDecPPTask(draft()), HeadSettings(epochs=1.5, learning_rate=4e-3)


HEAD_NAMES = ("medusa", "eagle", "hydra", "kangaroo", "specdec_pp")


def features_of(
    model,
    corpus: TokenisedCorpus,
    part: str,
    folder: Path,
    settings: OutputSettings,
    report: Report,
) -> Features:
    """The target's outputs from one part of the corpus and its states on them, kept on disk."""

    def tell(what: str) -> Callable[[int, int], None]:
        return lambda done, rows: report(f"{part}: {what} {done}/{rows} rows")

    rows = write_outputs(
        model.network, corpus.parts[part], folder / part, settings, tell("text of")
    )
    states = folder / part / "features"
    return write_features(model, rows, TAPS, states, report=tell("states of"))


def train_heads(
    names: tuple[str, ...],
    files: list[SourceFile],
    state: Path,
    out: Path,
    *,
    target: str = "zoo:target",
    draft: str = "zoo:draft",
    device: str | None = None,
    rows: int | None = None,
    report: Report = lambda line: None,
) -> list[dict[str, Any]]:
    """Train the named heads for ``target`` and write them to ``out/NAME``.

    Args:
        files: text whose starts the target continues.
        state: outputs, states and checkpoints, which a later call goes on from.
        rows: sequences to train on (default: the recipe's 4,096).

    Returns:
        The card of each head.
    """
    from workbench.models.attachments import save_attachment
    from workbench.training.head_trainer import head_card, train_head

    model, cards = load(target, device=device), []
    corpus = tokenise(files, model.tokenizer)
    settings = OutputSettings() if rows is None else OutputSettings(rows=rows)
    train = features_of(model, corpus, "train", state / "outputs", settings, report)
    held = OutputSettings(rows=min(HELD_OUT_ROWS, settings.rows), seed=settings.seed + 1)
    held_out = features_of(model, corpus, "held_out", state / "outputs", held, report)
    for name in names:
        task, how = task_of(name, lambda: load(draft, device=device))

        def tell(progress, name=name) -> None:
            loss = progress.curve[-1][1] if progress.curve else float("nan")
            minutes, seconds = divmod(round(progress.eta_s), 60)
            report(
                f"{name}: step {progress.step}/{progress.steps}  loss {loss:.3f}"
                f"  {minutes}:{seconds:02d} left"
            )

        head, progress = train_head(task, model, train, how, state / "heads" / name, tell)
        measured = task.measure(model, head, held_out)
        card = head_card(task, model, how, progress, measured, head)
        save_attachment(out / name, head, card)
        cards.append(card)
    return cards


def router_rows(corpus: TokenisedCorpus, part: str, count: int, seed: int) -> torch.Tensor:
    """Rows of one part of the corpus, ``[count t]``, files and rows in a random order."""
    rng, cap = np.random.default_rng(seed), 8 * ROUTER_ROW_TOKENS
    packed = epoch_rows(corpus.parts[part], ROUTER_ROW_TOKENS, rng, cap)
    return torch.from_numpy(packed[:count, :-1].astype(np.int64))


def train_router_head(
    files: list[SourceFile],
    state: Path,
    out: Path,
    *,
    target: str = "zoo:moe",
    device: str | None = None,
    rows: int | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Train the recurrent router's head for a mixture and write it to ``out/recurrent``.

    Args:
        files: text to learn on.
        state: checkpoints, which a later call goes on from.
        rows: to learn from (default: the recipe's 12,800).

    Returns:
        Its card.
    """
    from dataclasses import replace

    from workbench.core.method import make_method
    from workbench.models.attachments import save_attachment
    from workbench.training.rmoe import HEAD_SETTINGS, train_head

    model = load(target, device=device)
    corpus, how = tokenise(files, model.tokenizer), HEAD_SETTINGS
    if rows is not None:
        how = replace(how, steps=max(1, rows // how.batch_rows))
    train = router_rows(corpus, "train", how.steps * how.batch_rows, how.seed)
    held = router_rows(corpus, "held_out", ROUTER_HELD_ROWS, how.seed + 1)

    def tell(done) -> None:
        report(f"recurrent: step {done.steps}/{how.steps}  loss {done.curve[-1].loss_nats:.3f}")

    method = make_method("router", ROUTER_HEAD, heads="untrained")
    folder = state / "heads" / ROUTER_HEAD
    tensors, card = train_head(model, method, train, held, folder, how, listener=tell)
    save_attachment(out / ROUTER_HEAD, tensors, card)
    return card
