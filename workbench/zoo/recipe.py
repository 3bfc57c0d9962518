"""What each embedded model is: its configuration and its training recipe, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from workbench.zoo.tokenizer import VOCABULARY


@dataclass(frozen=True)
class Recipe:
    """Architecture and optimiser settings of one embedded model.

    ``layer_dropout`` is LayerSkip's p_max (arXiv 2404.16710): layer l of L is skipped for a whole
    batch with probability p_max * (2^(l/(L-1)) - 1). ``exit_scale`` e weighs the loss of one early
    exit, rotating over the layers, by e*(l+1)/L relative to the full-depth loss. ``balance_loss``
    and ``router_z_loss`` weigh the mean over the layers of a mixture's routers.
    """

    name: str
    architecture: dict = field(hash=False)
    learning_rate: float
    layer_dropout: float = 0.0
    exit_scale: float = 0.0
    weight_decay: float = 0.1
    warmup_steps: int = 60
    seed: int = 20_260
    model_type: str = "llama"
    balance_loss: float = 0.0
    router_z_loss: float = 0.0

    def config(self):
        """The transformers configuration of this model."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.model_type,
            vocab_size=VOCABULARY,
            max_position_embeddings=1024,
            rope_theta=1e4,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **self.architecture,
        )


RECIPES: dict[str, Recipe] = {
    "target": Recipe(
        "target",
        {
            "hidden_size": 320,
            "num_hidden_layers": 8,
            "num_attention_heads": 10,
            "num_key_value_heads": 5,
            "intermediate_size": 864,
        },
        learning_rate=3e-3,
        layer_dropout=0.1,
        exit_scale=0.2,
    ),
    "draft": Recipe(
        "draft",
        {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 352,
        },
        learning_rate=4e-3,
    ),
    "moe": Recipe(
        "moe",
        {
            "hidden_size": 192,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 32,
            "intermediate_size": 512,
            "moe_intermediate_size": 128,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
        learning_rate=3e-3,
        model_type="qwen3_moe",
        balance_loss=0.01,
        router_z_loss=1e-3,
    ),
}
