"""Operators by kind: what a person wants to know is how much goes into products, attention, norms, and moving data.

Where a decoder's layers run as one operator (`kernels/fused_graph.py`), they are profiled as two a layer, which are
kinds of their own: what is in them is not timed apart. All of them together take some percent longer so.
"""

from __future__ import annotations

OPERATORS = {
    "matrix product": (
        "MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits", "MatMulBnb4", "MatMulInteger",
        "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "TransposeMatMul", "Einsum",
    ),
    "convolution": (
        "Conv", "FusedConv", "ConvTranspose", "ConvInteger", "QLinearConv", "NhwcFusedConv", "QLinearConvTranspose",
    ),
    "attention": (
        "Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention", "RotaryEmbedding",
        "RelativePositionBias", "Softmax",
    ),
    "attention half of a layer": ("AttentionBlock",),
    "feed-forward half of a layer": ("GatedBlock",),
    "normalization": (
        "LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "InstanceNormalization",
        "SkipSimplifiedLayerNormalization", "RMSNormalization", "BatchNormalization", "GroupNormalization",
    ),
    "rounding": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    "moving data": (
        "Concat", "Slice", "Split", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Gather", "GatherND",
        "GatherElements", "ScatterND", "ScatterElements", "TensorScatter", "Expand", "Tile", "Pad", "Cast", "Identity",
        "Where", "Flatten", "ReorderInput", "ReorderOutput", "MemcpyToHost", "MemcpyFromHost", "QuickGather",
    ),
    "element by element": (
        "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Sin", "Cos", "Tanh", "Sigmoid", "Relu",
        "LeakyRelu", "Elu", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Erf", "Clip", "Max", "Min", "Snake",
        "BiasSplitGelu", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "HardSwish", "Swish",
        "Softplus", "Floor", "Ceil", "Round", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceMax",
    ),
}  # fmt: skip
KIND_OF = {operator: kind for kind, operators in OPERATORS.items() for operator in operators}
OTHER = "other operators"
AROUND = "around the operators"
"""What a run takes beyond its operators: scheduling, memory, and the profiler's own writing."""
KINDS = (*OPERATORS, OTHER, AROUND)


def kind_of(operator: str) -> str:
    """The kind of an operator; those of compiled code and new ones are other."""
    return KIND_OF.get(operator, OTHER)
