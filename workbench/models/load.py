"""Load a causal language model: embedded, from a folder, or from the hub's local cache.

Safetensors only, no remote code, no pickles. At load a small probe compares the fast passes with
the model's own forward and keeps the fastest that agrees.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from pathlib import Path

import torch

from workbench.core.errors import BadInput, Mismatch, ModelError, closest
from workbench.models.anatomy import anatomy_of
from workbench.models.devices import device_of
from workbench.models.model import Model
from workbench.models.precision import widened
from workbench.models.probe import choose_mode
from workbench.models.vocabulary import fingerprint

ZOO = Path(__file__).resolve().parent.parent / "zoo" / "weights"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve(name: str) -> Path | str:
    """``zoo:NAME`` and folders become paths, anything else stays a hub id.

    Raises:
        ModelError: an unknown embedded model, or a folder that is no checkpoint.
    """
    if name.startswith("zoo:"):
        folder = ZOO / name.removeprefix("zoo:")
        if not (folder / "config.json").is_file():
            known = [f"zoo:{p.parent.name}" for p in sorted(ZOO.glob("*/config.json"))]
            raise ModelError(
                f"model={name!r} is not an embedded model.{closest(name, known)}"
                f" Embedded: {', '.join(known) or 'none'}"
            )
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model={name!r}: no such folder")
    return name


def _check_folder(folder: Path) -> None:
    where = f"model={str(folder)!r}"
    if not (folder / "config.json").is_file():
        raise ModelError(f"{where}: config.json is missing; is this a Hugging Face checkpoint?")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ModelError(f"{where}: {index.name} is damaged; copy it again") from None
        missing = sorted(n for n in names if not (folder / n).is_file())
        if missing:
            raise ModelError(f"{where}: {missing[0]} is missing; download or copy it again")
    elif not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(
            p.name for p in folder.glob("*.pt*")
        )
        if pickled:
            raise ModelError(
                f"{where}: {pickled[0]} is a pickle, which can run code when loaded, so it is"
                " refused. Convert it where you trust it: model.save_pretrained(FOLDER) writes"
                " safetensors."
            )
        raise ModelError(f"{where}: no *.safetensors file; the checkpoint is incomplete")


def load(name: str, *, device: str | None = None, dtype: str | None = None) -> Model:
    """Load ``zoo:NAME``, a local folder or a hub id.

    Args:
        device: default CUDA where there is one, else the CPU.
        dtype: "float32", "bfloat16" or "float16"; default the checkpoint's own, but on a CPU that
            multiplies half precision more slowly than float32, float32 (measured;
            ``Model.precision`` says so).

    Raises:
        ModelError: missing, half-written or pickled weights, remote code, a model that cannot be
            rolled back.
        BadInput: an unknown dtype or device.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise BadInput(f"dtype={dtype!r}: one of {', '.join(_DTYPES)}")
    place = device_of(device)
    source = resolve(name)
    network, tokenizer = _from_pretrained(name, source, _DTYPES.get(dtype, "auto"))
    if getattr(network, "_is_stateful", False):
        raise ModelError(
            f"model={name!r}: its recurrent layers cannot be rolled back after a rejected draft;"
            " use a model whose layers all attend"
        )
    try:
        network = network.to(place).eval().requires_grad_(False)
    except torch.OutOfMemoryError:
        raise ModelError(f"model={name!r} does not fit on {place}; try dtype='bfloat16'") from None
    said = widened(network) if dtype is None and place.type == "cpu" else ""
    model = Model(name, network, tokenizer, anatomy_of(network), precision=said)
    choose_mode(model)
    return model


def _from_pretrained(name: str, source: Path | str, dtype):
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import (
        disable_progress_bar,
        enable_progress_bar,
        is_progress_bar_enabled,
    )

    local = isinstance(source, Path)
    options = {"trust_remote_code": False, "local_files_only": local}
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        options["local_files_only"] = True
    quiet = logging.getLogger("transformers")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    bars = is_progress_bar_enabled()
    disable_progress_bar()
    network = None
    try:
        network, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except SafetensorError as error:
        raise ModelError(
            f"model={name!r}: its weights are damaged or half-written ({error}); copy it again"
        ) from None
    except Exception as error:  # a damaged configuration can fail anywhere in transformers
        raise ModelError(f"model={name!r} cannot be loaded: {_reason(error, network)}") from None
    finally:
        quiet.setLevel(level)
        if bars:
            enable_progress_bar()
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        raise ModelError(
            f"model={name!r}: {len(missing)} tensors are missing from its weights, the first is"
            f" {missing[0]}; copy the checkpoint again"
        )
    return network, tokenizer


def _reason(error: Exception, network) -> str:
    """What went wrong in transformers, and what to do about it here."""
    words = " ".join(str(error).split())
    if "trust_remote_code" in words:
        return (
            "it needs code from its own repository, which is never run here; use a model whose"
            " model_type transformers knows"
        )
    if "ignore_mismatched_sizes" in words:
        return (
            "its tensors have other shapes than its config.json says; copy both again from one"
            " place"
        )
    words = f"{words[:240] or 'no reason given'} ({type(error).__name__})"
    if network is not None:
        return f"its tokenizer cannot be read; copy the tokenizer files again: {words}"
    if "connect" in words:
        return f"it is no folder here and not in the hub's cache; check the name: {words}"
    return f"check its config.json or copy the checkpoint again: {words}"


def check_pair(target: Model, draft: Model) -> None:
    """Refuse two models whose token ids mean different things.

    Padded vocabularies of one tokenizer are fine: the draft's logits are trimmed or filled up.

    Raises:
        Mismatch: naming both tokenizers and what to do.
    """
    if fingerprint(target.tokenizer) == fingerprint(draft.tokenizer):
        return
    a, b = target.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    token = next((t for t in a if b.get(t) != a[t]), None) or next(t for t in b if t not in a)
    raise Mismatch(
        f"target {target.name!r} ({type(target.tokenizer).__name__}, {len(a)} tokens) and draft"
        f" {draft.name!r} ({type(draft.tokenizer).__name__}, {len(b)} tokens) use different"
        f" tokenizers: {token!r} is {a.get(token)} in one and {b.get(token)} in the other."
        " Choose a draft of the same model family, or a drafter that needs no draft model"
        " (prompt_lookup, token_recycling)."
    )


def versions() -> dict[str, str]:
    """Versions that a measured number depends on."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
