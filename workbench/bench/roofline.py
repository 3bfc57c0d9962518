"""What a pass would cost on other hardware: the larger of reading and computing. A prediction.

*Idea*: a pass reads every weight once and the stored keys and values, and multiplies each weight
with every row. Whichever takes longer decides (Williams et al., Roofline, 2009). With few rows that
is reading, so a draft tree is nearly free until its rows reach flops / bandwidth.

*Paper*: Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009. Applied to a tree's size as in
Sequoia (arXiv 2402.12374, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.bench.cost_curve import CONTEXTS, ROWS, CostCurve
from workbench.core.errors import BadInput
from workbench.models.model import Model


@dataclass(frozen=True)
class Hardware:
    """What decides a pass on a device.

    Args:
        name: as shown.
        bandwidth_gb_s: of its memory, in 10^9 bytes a second.
        tflops: dense products in the dtype used, 10^12 a second.
        link_gb_s: to another device, 10^9 bytes a second.
        overhead_us: of a layer: launches, norms, everything that is neither.
    """

    name: str
    bandwidth_gb_s: float
    tflops: float
    link_gb_s: float = 32.0
    overhead_us: float = 10.0

    def __post_init__(self) -> None:
        for field in ("bandwidth_gb_s", "tflops", "link_gb_s"):
            if getattr(self, field) <= 0:
                raise BadInput(f"{field}={getattr(self, field)}: must be above 0")


# Data sheets: memory bandwidth, dense bfloat16 (float32 on the processors) peak, host link.
KNOWN = (
    Hardware("H200 SXM", 4800, 989, 64, 5),
    Hardware("H100 SXM", 3350, 989, 64, 5),
    Hardware("A100 80 GB", 2039, 312, 32, 5),
    Hardware("L4", 300, 121, 32, 5),
    Hardware("RTX 4090", 1008, 165, 32, 5),
    Hardware("8-channel DDR5 server", 300, 4, 32, 20),
    Hardware("dual-channel DDR4 desktop", 50, 1, 16, 20),
)


@dataclass(frozen=True)
class Size:
    """What decides a pass of a model.

    Args:
        name: as shown.
        parameters: that a pass multiplies (head included, looked-up embedding not).
        bytes_each: of a stored parameter.
        layers: of the model.
        kv_bytes: of keys and values of one token, all layers.
        attention_flops: of one row against one stored token, all layers.
    """

    name: str
    parameters: float
    bytes_each: float = 2.0
    layers: int = 32
    kv_bytes: float = 0.0
    attention_flops: float = 0.0

    @staticmethod
    def of(model: Model, bytes_each: float | None = None) -> Size:
        """Of a loaded dense model."""
        config = model.network.config.get_text_config()
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        embedding = model.network.get_input_embeddings().weight
        tied = model.network.get_output_embeddings().weight is embedding
        each = embedding.element_size() if bytes_each is None else bytes_each
        return Size(
            model.name,
            model.parameters - (0 if tied else embedding.numel()),
            each,
            model.layer_count,
            2 * model.layer_count * kv_heads * size * each,
            4 * model.layer_count * heads * size,
        )


def predicted_ms(size: Size, hardware: Hardware, rows: int, context: int) -> float:
    """Milliseconds of a pass by the roofline, plus the layers' overhead."""
    read = size.parameters * size.bytes_each + context * size.kv_bytes
    flops = rows * (2 * size.parameters + context * size.attention_flops)
    busiest = max(read / (hardware.bandwidth_gb_s * 1e9), flops / (hardware.tflops * 1e12))
    return busiest * 1e3 + size.layers * hardware.overhead_us * 1e-3


def predicted_curve(
    size: Size,
    hardware: Hardware,
    rows: tuple[int, ...] = ROWS,
    contexts: tuple[int, ...] = CONTEXTS,
) -> CostCurve:
    """The cost curve of a model on hardware that is not here."""
    ms = tuple(tuple(predicted_ms(size, hardware, n, c) for n in rows) for c in contexts)
    return CostCurve(f"{size.name} on {hardware.name}", rows, contexts, ms, predicted=True)


def rows_for_free(size: Size, hardware: Hardware) -> float:
    """Rows at which computing takes as long as reading: larger trees start to cost."""
    return hardware.tflops * 1e12 * size.bytes_each / (2 * hardware.bandwidth_gb_s * 1e9)


def link_ms(hardware: Hardware, nodes: int, vocabulary: int, depth: int = 1) -> float:
    """Milliseconds to move a drawn tree's laws to the target's device, float32, level by level."""
    return 1e3 * nodes * vocabulary * 4 / (hardware.link_gb_s * 1e9) + depth * 0.01


def fitted(curve: CostCurve, size: Size) -> Hardware:
    """The bandwidth and the arithmetic that this machine's curve shows, by its two ends.

    One row is all reading, the most rows are all computing. Where more rows cost nothing more,
    the arithmetic shown is a lower bound.
    """
    context = curve.contexts[0]
    one, most = curve.pass_ms(1, context), curve.pass_ms(curve.rows[-1], context)
    read = size.parameters * size.bytes_each + context * size.kv_bytes
    flops = curve.rows[-1] * (2 * size.parameters + context * size.attention_flops)
    return Hardware(
        "this machine", read / (one * 1e-3) / 1e9, flops / (most * 1e-3) / 1e12, overhead_us=0
    )
