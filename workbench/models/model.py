"""A loaded model: its weights, its tokenizer and what the workbench found out about it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import threading
from dataclasses import dataclass, field
from functools import cached_property

import torch

from workbench.core.errors import BadInput, ModelError
from workbench.core.inference import inference_mode
from workbench.models.anatomy import Anatomy, anatomy_of
from workbench.models.graphs import SWITCH, GraphWalk
from workbench.models.native.walk import NativeWalk
from workbench.models.recording import CudaGraphs
from workbench.models.session import Session
from workbench.models.virtual_tokens import VirtualKeys, virtual_count, virtual_keys
from workbench.models.walk import FusedWalk

_SAMPLED_PER_WEIGHT = 1024


@dataclass(eq=False)
class Model:
    """A loaded checkpoint and what the workbench found out about it.

    ``mode`` is the pass in use ("fused", "walk" or "stock"); ``reason`` says why a faster one,
    spans or trees are not available, and ``precision`` why weights were widened, if they were.
    Sessions of one model share its weights; ``lock`` serialises them.
    """

    name: str
    network: torch.nn.Module = field(repr=False)
    tokenizer: object = field(repr=False)
    anatomy: Anatomy | None = field(default=None, repr=False)
    mode: str = "stock"
    reason: str = ""
    trees: bool = True
    precision: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __deepcopy__(self, memo: dict) -> Model:
        """Itself: copying a state that mentions a model must not copy its weights."""
        return self

    def clone(self) -> Model:
        """A model with weights of its own, equal to these; half precision becomes float32."""
        with inference_mode(False):
            network = copy.deepcopy(self.network)
            if self.torch_dtype in (torch.float16, torch.bfloat16):
                network = network.float()
        own = anatomy_of(network) if self.anatomy is not None else None
        other = dataclasses.replace(self, network=network, anatomy=own, lock=threading.RLock())
        if self.graphs is not None and other.graphs is not None:
            other.graphs.refused = self.graphs.refused
        return other

    @property
    def spans(self) -> bool:
        """Whether single layers can be left out or tapped."""
        return self.mode != "stock"

    @cached_property
    def torch_device(self) -> torch.device:
        """Where the weights are; read once, because asking walks all parameters."""
        return self.network.device

    @cached_property
    def torch_dtype(self) -> torch.dtype:
        """What the weights are stored as; read once, likewise."""
        return self.network.dtype

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

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over names, shapes and a sample of every weight; tells targets apart."""
        digest = hashlib.sha256()
        for name, weight in self.network.state_dict().items():
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            flat = weight.detach().flatten()
            stride = max(1, len(flat) // _SAMPLED_PER_WEIGHT)
            sample = flat[::stride][:_SAMPLED_PER_WEIGHT].to("cpu", torch.bfloat16)
            digest.update(sample.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def vocab_size(self) -> int:
        """Width of the logits (may exceed the tokenizer's vocabulary by padding)."""
        return self.network.get_output_embeddings().weight.shape[0]

    @property
    def known_tokens(self) -> int:
        """Token ids that both the logits and the tokenizer know."""
        return min(self.vocab_size, len(self.tokenizer))

    @cached_property
    def layer_count(self) -> int:
        """Read once: a configuration takes its time to answer."""
        return self.network.config.get_text_config().num_hidden_layers

    @cached_property
    def _context(self) -> tuple[int, str]:
        config = self.network.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None) or 1 << 20
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or ()
        slides = "sliding_attention" in kinds if kinds else bool(window)
        if slides and window and window < longest:
            return window, "a sliding window cannot be rolled back once it is exceeded"
        rope = getattr(config, "rope_parameters", None) or {}
        short = rope.get("original_max_position_embeddings", longest)
        if rope.get("rope_type") == "longrope" and short < longest:
            return short, "its rotary angles change beyond that, which stored keys cannot follow"
        return longest, "the positions it was built for"

    @property
    def context_tokens(self) -> int:
        """Tokens that fit, prompt and drafts included; virtual tokens take their share."""
        return self._context[0] - virtual_count(self.network)

    @property
    def context_reason(self) -> str:
        virtual = virtual_count(self.network)
        return self._context[1] + (f", less {virtual} virtual tokens" if virtual else "")

    def virtual_keys(self) -> VirtualKeys | None:
        """What stands in front of every text, where an adapter puts something there."""
        with inference_mode():
            return virtual_keys(self.network)

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
        return FusedWalk(self.anatomy)

    @cached_property
    def native(self) -> NativeWalk | None:
        """The compiled pass, where this model is of the kind and the dtype that it is made for."""
        plain = self.mode == "fused" and self.anatomy.softcap is None
        if not plain or self.torch_dtype != torch.float32 or self.torch_device.type != "cpu":
            return None
        return NativeWalk(self.anatomy)

    @cached_property
    def graphs(self) -> GraphWalk | None:
        """The recorded pass, where this model is of the kind that it is made for and on a GPU."""
        if self.mode != "fused" or self.torch_device.type != "cuda":
            return None
        if os.environ.get(SWITCH, "1") == "0":
            return None
        return GraphWalk(self.anatomy, CudaGraphs(self.torch_device))

    def walker(self, rows: int) -> FusedWalk:
        """What runs a pass over so many rows: compiled or recorded if it may be, else torch."""
        fast = self.native or self.graphs
        return fast if fast is not None and fast.ready(rows) else self.fused

    @property
    def parts(self) -> Anatomy:
        """The anatomy, for heads that need one.

        Raises:
            ModelError: a family whose parts are not known.
        """
        if self.anatomy is None:
            raise ModelError(
                f"{self.name}: the parts of a {self.network.config.model_type!r} model are not"
                " known, so no trained or untrained head fits it; choose a drafter without heads"
                " (draft_model, prompt_lookup, token_recycling)"
            )
        return self.anatomy

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """The output head on normed states ``[... d]``: compiled where a pass would be.

        For drafters that read it beside the passes of a session; models that can be walked only.
        """
        rows = states.reshape(-1, states.shape[-1])
        native, plain = self.native, states.dtype == torch.float32 and not states.requires_grad
        if native is None or not plain or not native.ready(rows.shape[0]):
            return self.parts.logits(states)
        return native.logits(rows.contiguous()).view(*states.shape[:-1], -1)

    @property
    def compiled(self) -> bool:
        """Whether a pass of one row would run compiled now."""
        return self.native is not None and self.native.ready(1)

    def session(self) -> Session:
        """A fresh session; the weights are shared, the cache is its own."""
        fast = self.native or self.graphs
        if fast is not None:
            fast.check()
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

    def encode_all(self, text: str) -> list[int]:
        """Token ids of a text of any length, also longer than the context (for losses)."""
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def decode(self, ids) -> str:
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    def piece(self, token: int) -> str:
        """Text of one token id (``<id>`` beyond the tokenizer's vocabulary)."""
        if token >= len(self.tokenizer):
            return f"<{token}>"
        return self.decode([token])
