"""A real network with a vocabulary of a few tokens, so that every law can be enumerated.

Drafters that walk the target's own layers or read its hidden states cannot run on a toy rule; here
they meet the real session, and :meth:`RuledModel.rule` is the plain forward they are judged by.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.core.inference import inference_mode
from workbench.models.anatomy import anatomy_of
from workbench.models.model import Model


class RuledModel(Model):
    """A model that also has a toy's ``rule``: a whole text -> logits ``[v]`` by a plain forward."""

    def rule(self, tokens: Sequence[int]) -> torch.Tensor:
        """Computed once for each text, so that equal texts have equal laws to the last bit."""
        known = self.__dict__.setdefault("_known", {})
        text = tuple(tokens)
        if text not in known:
            known[text] = self.laws_along(text)[-1]
        return known[text]

    @inference_mode()
    def laws_along(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits ``[t v]`` after every prefix, from one plain forward without a cache."""
        ids = torch.tensor([list(tokens)])
        return self.network(input_ids=ids, use_cache=False).logits[0].double()


def tiny_network(
    vocab_size: int = 3, *, layers: int = 4, seed: int = 1, std: float = 0.35
) -> RuledModel:
    """A random Llama in double precision with ``vocab_size`` tokens, 16 wide.

    Args:
        std: of the weights; the usual 0.02 would make every law nearly uniform.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=std,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    return RuledModel(
        f"tiny:{seed}", network, None, anatomy_of(network), mode="fused", reason="it is tiny"
    )
