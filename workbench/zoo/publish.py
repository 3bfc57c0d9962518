"""Write a trained model and its card in the layout that ``load("zoo:NAME")`` reads."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from workbench.zoo.corpus import TokenisedCorpus
from workbench.zoo.evaluate import bigram_loss, held_out_losses
from workbench.zoo.recipe import Recipe
from workbench.zoo.tokenizer import VOCABULARY
from workbench.zoo.train import TrainSettings

WEIGHTS = Path(__file__).resolve().parent / "weights"


def make_card(
    recipe: Recipe, corpus: TokenisedCorpus, settings: TrainSettings, model, progress: dict
) -> dict:
    """Everything that must be known to trust or repeat the weights; losses are of the bf16 copy."""
    import transformers

    rounded = model.to(torch.bfloat16).float()
    shifted = held_out_losses(rounded, corpus, "families") if corpus.parts["families"] else {}
    return {
        "name": recipe.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_seen": progress["step"] * settings.batch_rows * settings.row_tokens,
        **held_out_losses(rounded, corpus),
        "families_loss": shifted.get("held_out_loss"),
        "bigram_loss": bigram_loss(corpus, VOCABULARY),
        "corpus_bytes": corpus.corpus_bytes,
        "corpus_files": corpus.file_count,
        "corpus_tokens": {part: corpus.n_tokens(part) for part in corpus.parts},
        "recipe": asdict(recipe),
        "settings": asdict(settings),
        "seed": recipe.seed,
        "seconds": round(progress["seconds"], 1),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        },
        "loss_curve": progress["curve"],
    }


def publish(folder: Path, model, tokenizer_folder: Path, card: dict) -> Path:
    """Save bf16 safetensors, the tokenizer and ``card.json``; plain transformers can load it."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"  # stored in half the bytes, computed exactly
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(folder)
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    return folder


def cards() -> list[dict]:
    """The card of every embedded model, with the bytes its weights take."""
    return _cards("*/card.json")


def head_cards() -> list[dict]:
    """The card of every head that comes with the embedded target, likewise."""
    return _cards("heads/*/card.json")


def _cards(pattern: str) -> list[dict]:
    found = []
    for path in sorted(WEIGHTS.glob(pattern)):
        size = sum(f.stat().st_size for f in path.parent.glob("*.safetensors"))
        found.append({**json.loads(path.read_text()), "weights_bytes": size})
    return found
