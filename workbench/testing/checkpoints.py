"""Tiny random checkpoints of every family, written to disk as a user would have them.

The weights are wider than usual (standard deviation 0.15, norm gains other than 1, biases other
than 0): with the default 0.02 attention hardly matters, and a wrong mask or position looks right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

BYTES = 256
END_TEXT = "<end>"

_SMALL = {
    "vocab_size": 260,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

# model_type -> what differs from _SMALL; a value of ... takes the setting away.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 500.0},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "phi3": {"partial_rotary_factor": 0.5},
    "gemma": {"head_dim": 16, "num_key_value_heads": 1},
    "gemma2": {"head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16},
    "glm": {"head_dim": 16, "partial_rotary_factor": 0.5},
    "stablelm": {"partial_rotary_factor": 0.25},
    "olmo": {},
    "olmo2": {},
    "gpt_neox": {"num_key_value_heads": ..., "rotary_pct": 0.5},
    "gpt2": {"n_inner": 64},
    "opt": {"num_key_value_heads": ..., "ffn_dim": 64, "word_embed_proj_dim": 64},
    "qwen2_moe": {"shared_expert_intermediate_size": 32, **_EXPERTS},
    "qwen3_moe": {"head_dim": 16, **_EXPERTS},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4},
}
# Families without an entry in the anatomy table, and some that cannot be decoded at all.
UNLISTED: dict[str, dict[str, Any]] = {
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "bias": True, "alibi": False},
    "gptj": {"rotary_dim": 8, "n_inner": 64},
    "bloom": {},
    "mpt": {"expansion_ratio": 1, "attn_config": {"alibi": True}, "max_seq_len": 256},
    "mamba": {"state_size": 8, "expand": 2, "time_step_rank": 4},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "recurrent_gemma": {"lru_width": 64, "attention_window_size": 32, "head_dim": 16},
}


def byte_tokenizer(shift: int = 0):
    """One token a byte, and one that ends a text; ``shift`` moves the ids to make another one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: (i + shift) % BYTES for i, letter in enumerate(letters)}
    raw = Tokenizer(models.BPE(vocab, [], unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END_TEXT)


def tiny_config(family: str, **changes: Any):
    """The configuration of a small model of ``family`` (a transformers model type)."""
    from transformers import AutoConfig

    values = {**_SMALL, **FAMILIES.get(family, UNLISTED.get(family, {})), **changes}
    kept = {name: value for name, value in values.items() if value is not ...}
    return AutoConfig.for_model(family, **kept)


@torch.no_grad()
def _randomise(network: torch.nn.Module, std: float, generator: torch.Generator) -> None:
    for name, weight in network.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            weight.copy_(noise * std)
        elif name.endswith("bias"):
            weight.copy_(noise * 0.1)
        else:  # gains of norms
            weight.copy_(1 + 0.3 * noise)


def tiny_network(family: str, *, seed: int = 0, std: float = 0.15, **changes: Any):
    """A random network of ``family`` in memory, the same for the same seed on any machine."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(tiny_config(family, **changes))
    _randomise(network, std, torch.Generator().manual_seed(seed))
    return network.eval()


def write_checkpoint(
    folder: Path,
    family: str,
    *,
    seed: int = 0,
    std: float = 0.15,
    dtype: torch.dtype = torch.float32,
    shift: int = 0,
    shard_bytes: int | None = None,
    **changes: Any,
) -> Path:
    """Write config, safetensors and a byte-level tokenizer; returns ``folder``.

    Args:
        family: a transformers model type, usually a key of :data:`FAMILIES`.
        std: of the weights.
        shift: of the tokenizer's ids; another number is another tokenizer.
        shard_bytes: split the weights into files of about this size.
        changes: configuration values that differ from the family's small ones.
    """
    folder = Path(folder)
    network = tiny_network(family, seed=seed, std=std, **changes).to(dtype)
    options = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    network.save_pretrained(folder, **options)
    byte_tokenizer(shift).save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change entries of a checkpoint's ``config.json``."""
    path = Path(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=1))
