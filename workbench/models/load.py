"""Load a causal language model: embedded, from a folder, or from the hub's local cache.

Safetensors only, no remote code, no pickles. At load a small probe compares the fast passes with
the model's own forward and keeps the fastest that agrees.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from workbench.core.errors import BadInput, Mismatch, ModelError, closest
from workbench.models.anatomy import Anatomy, anatomy_of
from workbench.models.probe import choose_mode
from workbench.models.session import Session
from workbench.models.walk import FusedWalk

ZOO = Path(__file__).resolve().parent.parent / "zoo" / "weights"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(eq=False)
class Model:
    """A loaded checkpoint and what the workbench found out about it.

    ``mode`` is the pass in use ("fused", "walk" or "stock"); ``reason`` says why a faster one,
    spans or trees are not available. Sessions of one model share its weights; ``lock`` serialises
    them.
    """

    name: str
    network: torch.nn.Module = field(repr=False)
    tokenizer: object = field(repr=False)
    anatomy: Anatomy | None = field(default=None, repr=False)
    mode: str = "stock"
    reason: str = ""
    trees: bool = True
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def spans(self) -> bool:
        """Whether single layers can be left out or tapped."""
        return self.mode != "stock"

    @property
    def torch_device(self) -> torch.device:
        return self.network.device

    @property
    def device(self) -> str:
        return str(self.network.device)

    @property
    def dtype(self) -> str:
        return str(self.network.dtype).removeprefix("torch.")

    @cached_property
    def parameters(self) -> int:
        """Number of parameters, tied ones once."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def vocab_size(self) -> int:
        """Width of the logits (may exceed the tokenizer's vocabulary by padding)."""
        return self.network.get_output_embeddings().weight.shape[0]

    @property
    def layer_count(self) -> int:
        config = self.network.config.get_text_config()
        return config.num_hidden_layers

    @cached_property
    def _context(self) -> tuple[int, str]:
        config = self.network.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None) or 1 << 20
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or ()
        slides = "sliding_attention" in kinds if kinds else bool(window)
        if slides and window and window < longest:
            return window, "a sliding window cannot be rolled back once it is exceeded"
        return longest, "the positions it was built for"

    @property
    def context_tokens(self) -> int:
        """Tokens that fit, prompt and drafts included."""
        return self._context[0]

    @property
    def context_reason(self) -> str:
        return self._context[1]

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every token id that ends a text."""
        generation = getattr(self.network, "generation_config", None)
        ids = getattr(generation, "eos_token_id", None)
        if ids is None:
            ids = self.network.config.eos_token_id
        return frozenset([ids] if isinstance(ids, int) else ids or ())

    @cached_property
    def fused(self) -> FusedWalk:
        return FusedWalk(self.anatomy, self.context_tokens)

    def session(self) -> Session:
        """A fresh session; the weights are shared, the cache is its own."""
        return Session(self)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt.

        Raises:
            BadInput: a prompt that gives no token, or is longer than the context.
        """
        ids = self.tokenizer(text, verbose=False)["input_ids"] if text else []
        if not ids:
            raise BadInput(f"prompt={text!r} is empty; write at least one character")
        if len(ids) >= self.context_tokens:
            raise BadInput(
                f"prompt has {len(ids)} tokens, more than the {self.context_tokens} that"
                f" {self.name} can hold ({self.context_reason}); shorten it"
            )
        return list(ids)

    def decode(self, ids) -> str:
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    def piece(self, token: int) -> str:
        """Text of one token id (``<id>`` beyond the tokenizer's vocabulary)."""
        if token >= len(self.tokenizer):
            return f"<{token}>"
        return self.decode([token])


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
        except (ValueError, KeyError) as error:
            raise ModelError(f"{where}: {index.name} is damaged ({error})") from None
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
        dtype: "float32", "bfloat16" or "float16"; default the checkpoint's own.

    Raises:
        ModelError: missing, half-written or pickled weights, remote code, a model that cannot be
            rolled back.
        BadInput: an unknown dtype or device.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise BadInput(f"dtype={dtype!r}: one of {', '.join(_DTYPES)}")
    place = _device(device)
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
    model = Model(name, network, tokenizer, anatomy_of(network))
    choose_mode(model)
    return model


def _device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise BadInput(f"device={device!r}: use 'cpu', 'cuda' or 'cuda:0'") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device={device!r}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return place


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
    try:
        network, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except SafetensorError as error:
        raise ModelError(
            f"model={name!r}: its weights are damaged or half-written ({error}); copy it again"
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model={name!r} cannot be loaded: {line}") from None
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


def check_pair(target: Model, draft: Model) -> None:
    """Refuse two models whose token ids mean different things.

    Padded vocabularies of one tokenizer are fine: the draft's logits are trimmed or filled up.

    Raises:
        Mismatch: naming both tokenizers and what to do.
    """
    a, b = target.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    if a != b:
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
