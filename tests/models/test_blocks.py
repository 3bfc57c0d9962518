"""The block of the heads: incremental passes and trees give what one causal pass gives."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from workbench.models.blocks import Block, BlockShape, BlockStore

CONFIG = LlamaConfig(
    vocab_size=11,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
)


def block(**options) -> Block:
    torch.manual_seed(3)
    return Block(BlockShape.of(CONFIG, **options)).double().eval()


def test_it_is_llamas_layer():
    torch.manual_seed(5)
    theirs = LlamaModel(CONFIG).double().eval()
    theirs.norm = torch.nn.Identity()
    ours, layer = block(), theirs.layers[0]
    names = {
        "input_norm": layer.input_layernorm,
        "q": layer.self_attn.q_proj,
        "k": layer.self_attn.k_proj,
        "v": layer.self_attn.v_proj,
        "o": layer.self_attn.o_proj,
        "mlp_norm": layer.post_attention_layernorm,
        "gate": layer.mlp.gate_proj,
        "up": layer.mlp.up_proj,
        "down": layer.mlp.down_proj,
    }
    for name, part in names.items():
        getattr(ours, name).weight.data.copy_(part.weight.data)
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs(inputs_embeds=x, use_cache=False).last_hidden_state
        assert torch.allclose(ours(x), wanted, atol=1e-5)  # their norms round to single precision


@pytest.mark.parametrize("inner", [None, 0])
def test_piecewise_equals_at_once_after_a_crop(inner):
    layer = block(inner=inner)
    x = torch.randn(1, 10, 24, dtype=torch.float64)
    with torch.no_grad():
        whole = layer(x)
        store = BlockStore()
        layer(x[:, :4], store=store)
        layer(torch.randn(1, 70, 24, dtype=torch.float64), store=store)
        store.crop(4)
        parts = [layer(x[:, 4:7], store=store), layer(x[:, 7:8], store=store)]
        parts.append(layer(x[:, 8:], store=store))
    assert torch.allclose(torch.cat(parts, 1), whole[:, 4:], atol=1e-12)


def test_a_tree_row_sees_its_own_path_only():
    layer = block()
    stem = torch.randn(1, 3, 24, dtype=torch.float64)
    left, right, below = torch.randn(3, 1, 1, 24, dtype=torch.float64)
    with torch.no_grad():
        store = BlockStore()
        layer(stem, store=store)
        visible = torch.tensor(
            [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 1]], dtype=torch.bool
        )
        rows = torch.cat((left, right, below), 1)
        got = layer(rows, torch.tensor([3, 3, 4]), store, visible)
        wanted = layer(torch.cat((stem, right, below), 1))[:, 3:]
        other = layer(torch.cat((stem, left), 1))[:, 3:]
    assert torch.allclose(got[:, 1:], wanted, atol=1e-12)
    assert torch.allclose(got[:, :1], other, atol=1e-12)
