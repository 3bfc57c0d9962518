"""Write a large checkpoint that says what a small one says and costs what a large one costs.

*Idea*: the speed of a method depends on the shape of its target, its acceptance on what the target
says. A large network that computes the function of a small one gives the cost of the first with
drafts, heads and texts of the second, and needs no training (:mod:`workbench.zoo.widening`).

*Deviations*: the vocabulary stays as it is, so the head is cheaper than that of a real model of the
size, and so is the text: it is the small model's. Mixtures are refused: theirs would need every
expert c times and c times as many a token.
"""

from __future__ import annotations

import copy
import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from workbench.core.errors import BadInput
from workbench.core.inference import inference_mode
from workbench.models.load import load
from workbench.models.model import Model
from workbench.zoo.inflated_card import make_card, page_of
from workbench.zoo.widening import WAYS, Shape, Tensors, Widening

SIZES = {
    "109M": Shape(768, 64, 12, 6, 3072, 12),
    "290M": Shape(1280, 64, 20, 5, 5120, 12),
    "1B": Shape(2048, 64, 32, 8, 8192, 16),
    "3B": Shape(3072, 128, 24, 8, 8192, 28),
    "7B": Shape(4096, 128, 32, 8, 14336, 32),
}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
FAMILIES = {"llama", "qwen3"}
FIXED_ROTARY = {"default", "linear", "llama3"}  # angles that depend on nothing but the frequency
MOST_DIFFERENCE = 1e-4  # of logits, float32
INDEX = "model.safetensors.index.json"


def read_source(name: str) -> Model:
    """The small model in float32, if it is of a kind that can be inflated.

    Raises:
        BadInput: another family, biases, sliding windows or rotary tables that depend on more.
    """
    model = load(name, device="cpu", dtype="float32")
    config, why = model.network.config, ""
    if config.model_type not in FAMILIES:
        why = f"is a {config.model_type!r} model"
    elif (kind := config.rope_parameters.get("rope_type", "default")) not in FIXED_ROTARY:
        why = f"has rotary angles of the kind {kind!r}, which larger heads would change"
    elif set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        why = "has layers with a sliding window"
    elif extra := [name for name in model.network.state_dict() if not _known(name)]:
        why = f"has tensors beyond those of a plain layer, the first is {extra[0]}"
    if why:
        raise BadInput(
            f"--source {name!r} {why}; name a Llama or Qwen3 checkpoint without biases, or"
            " zoo:target"
        )
    return model


def _known(name: str) -> bool:
    """Whether this is a tensor of the plain layout."""
    parts = name.split(".")
    if name.startswith("model.layers."):
        return parts[-1] == "weight" and (parts[-2].endswith(("_proj", "layernorm", "_norm")))
    return name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")


def widening_of(config: Any, shape: Shape, way: str = "duplicate") -> Widening:
    """How a model of this configuration lies in a shape.

    Raises:
        BadInput: a shape that cannot hold it, or an unknown way.
    """
    if way not in WAYS:
        raise BadInput(f"--by {way!r}: one of {', '.join(WAYS)}")
    return Widening.of(
        Shape.of(config),
        shape,
        config.rms_norm_eps,
        way,
        tied=config.tie_word_embeddings,
        head_norms=config.model_type == "qwen3",
    )


def config_of(small: Any, widening: Widening, dtype: torch.dtype) -> Any:
    """The configuration of the large network, from that of the small one."""
    config, shape = copy.deepcopy(small), widening.large
    config.hidden_size, config.head_dim = shape.hidden, shape.head_size
    config.num_attention_heads, config.num_key_value_heads = shape.heads, shape.kv_heads
    config.intermediate_size, config.num_hidden_layers = shape.inner, shape.layers
    config.rms_norm_eps, config.tie_word_embeddings = widening.eps, widening.tied
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = ["full_attention"] * shape.layers
    config.dtype = dtype
    return config


def inflate(
    model: Model,
    shape: Shape,
    out: Path,
    *,
    way: str = "duplicate",
    dtype: str = "float32",
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the large checkpoint layer by layer to ``out``; returns its card.

    Args:
        model: whose function it has; see :func:`read_source`.
        out: a folder that is new or empty.
        way: ``duplicate`` the stream, or pad it with ``zeros``.
        dtype: bfloat16 rounds what float32 keeps: the function is then the source's only nearly.
        seed: of the inert weights.

    *Cost*: memory for the source, one layer and its bytes as written; never the whole network.

    Raises:
        BadInput: a shape or folder that cannot be used, or too little room for the files.
    """
    if dtype not in DTYPES:
        raise BadInput(f"--dtype {dtype!r}: one of {', '.join(DTYPES)}")
    out = out.expanduser()
    check_folder(out)
    started, tokenizer = time.perf_counter(), cast(Any, model.tokenizer)
    widening, kind = widening_of(model.network.config, shape, way), DTYPES[dtype]
    parameters = shape.parameters(model.vocab_size, widening.tied, widening.head_norms)
    check_room(out, parameters * kind.itemsize)
    with _renamed_when_whole(out) as folder:
        written = _write_weights(folder, model, Tensors(widening, seed, kind), report)
        config_of(model.network.config, widening, kind).save_pretrained(folder)
        model.network.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made = {"dtype": dtype, "by": way, "seed": seed, **written}
        card = make_card(model, widening, made)
        card["seconds"] = round(time.perf_counter() - started, 1)
        (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(page_of(card), encoding="utf-8")
    return card


def _write_weights(
    folder: Path, model: Model, tensors: Tensors, report: Callable[[str], None]
) -> dict[str, int]:
    """One file for the embeddings, each layer, and the head; counts of what was written."""
    from safetensors.torch import save_file

    weights = {name: weight.detach() for name, weight in model.network.state_dict().items()}
    count = tensors.widening.large.layers + 2
    places: dict[str, str] = {}
    totals = {"parameters": 0, "zeros": 0, "weights_bytes": 0}
    for number, part in enumerate(tensors.parts(weights), 1):
        file = f"model-{number:05}-of-{count:05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
        totals["parameters"] += sum(tensor.numel() for tensor in part.values())
        totals["zeros"] += sum(int((tensor == 0).sum()) for tensor in part.values())
        totals["weights_bytes"] += sum(tensor.nbytes for tensor in part.values())
        part.clear()  # the loop still holds it while the next one is made
        report(f"{number} of {count} files, {totals['weights_bytes'] / 1e9:.2f} GB")
    index = {"metadata": {"total_size": totals["weights_bytes"]}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return totals


def check_folder(out: Path) -> None:
    """Refuse what would be overwritten, or what an earlier run left.

    Raises:
        BadInput: a file, a folder with something in it, or a half-written one beside it.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {str(out)!r} is a file; name a folder that is new or empty")
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"--out {str(out)!r} is not empty; name a folder that is new or empty")
    if _partial(out).exists():
        raise BadInput(
            f"--out {str(out)!r}: {_partial(out).name!r} beside it is half-written, by a run that"
            " was cut off or is not done yet; remove it or name another folder"
        )


def check_room(out: Path, needed_bytes: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        BadInput: naming what is needed and what is free.
    """
    there = next(folder for folder in out.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise BadInput(
            f"--out {str(out)!r}: the weights take {needed_bytes / 1e9:.2f} GB and"
            f" {free / 1e9:.2f} GB are free there; free some, name a folder on another disk, or"
            " take a smaller --size or --dtype bfloat16"
        )


def _partial(out: Path) -> Path:
    return out.absolute().with_name(out.absolute().name + ".partial")


@contextmanager
def _renamed_when_whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its name at the end, and is removed if that fails."""
    from safetensors import SafetensorError

    partial = _partial(out)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        yield partial
        if out.is_dir():
            out.rmdir()  # it is empty; not every system renames over a folder
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        raise _unwritable(out, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unwritable(out: Path, error: Exception) -> BadInput:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    fix = "free some space" if full else "check the path and its permissions"
    return BadInput(f"--out {str(out)!r} cannot be written ({error}); {fix}")


class Comparison(NamedTuple):
    """Of two models' logits at the same places."""

    largest_difference: float
    same_argmax_ratio: float


@inference_mode()
def compare(a: Model, b: Model, tokens: int = 512, seed: int = 0) -> Comparison:
    """Whether two models say the same about random tokens."""
    count = min(tokens, a.context_tokens)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, a.known_tokens, (1, count), generator=generator)
    one, other = (
        model.network(input_ids=ids.to(model.torch_device), use_cache=False).logits[0].float().cpu()
        for model in (a, b)
    )
    same = (one.argmax(-1) == other.argmax(-1)).float().mean()
    return Comparison(float((one - other).abs().max()), float(same))


def check(source: Model, folder: Path, tokens: int = 512) -> dict[str, float]:
    """Load what was written and compare it with its source, which is in float32.

    In bfloat16 the source itself rounds as well, so it is compared with that beside: ``passed``
    means that the large network agrees with float32 about as often (within two points).
    """
    stored = json.loads((folder / "config.json").read_text())["dtype"]
    made = load(str(folder), device="cpu", dtype=stored)  # as it is, even where it would be widened
    found = compare(source, made, tokens)._asdict()
    if made.dtype == "float32":
        return {**found, "passed": found["largest_difference"] < MOST_DIFFERENCE}
    rounded = compare(source, load(source.name, device="cpu", dtype=made.dtype), tokens)
    ratio = rounded.same_argmax_ratio
    passed = found["same_argmax_ratio"] >= ratio - 0.02
    return {**found, "rounded_source_same_argmax_ratio": ratio, "passed": passed}
