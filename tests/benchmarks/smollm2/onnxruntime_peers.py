"""ONNX Runtime's own quantizers on the same graph, each as its documentation has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

Feeds = list[dict[str, Any]]
Peer = Callable[[Path, Feeds, Path], None]
"""Takes a graph with its weights inside or beside it, what it is fed, and where to write."""


class Reader(CalibrationDataReader):
    """Feeds, one after the other."""

    def __init__(self, fed: Feeds) -> None:
        self._left: Iterator[dict[str, Any]] = iter(fed)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


def dynamic(graph: Path, fed: Feeds, output: Path) -> None:
    """INT8 weights, a scale for each channel; activations get their scales when the graph runs.

    Products alone: it takes the standard's Attention for its own operator of that name, and writes a graph that it
    cannot load.
    """
    del fed
    quantize_dynamic(
        str(graph), str(output), per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
    )


def static(graph: Path, fed: Feeds, output: Path) -> None:
    """Q/DQ around all that it knows."""
    _static(graph, fed, output, None)


def static_products(graph: Path, fed: Feeds, output: Path) -> None:
    """Q/DQ around products alone."""
    _static(graph, fed, output, ["MatMul"])


def _static(graph: Path, fed: Feeds, output: Path, ops: list[str] | None) -> None:
    quantize_static(
        str(graph), str(output), Reader(fed), quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=ops,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )  # fmt: skip


def nearest(block_size: int, symmetric: bool) -> Peer:
    """`MatMulNBitsQuantizer` with its default algorithm: the nearest of 16 values."""

    def quantize(graph: Path, fed: Feeds, output: Path) -> None:
        del fed
        config = DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=symmetric, accuracy_level=4)
        _four_bits(MatMulNBitsQuantizer(onnx.load(str(graph)), algo_config=config), output)

    return quantize


def half_quadratic(block_size: int) -> Peer:
    """`MatMulNBitsQuantizer` with HQQ (Badri & Shaji 2023)."""

    def quantize(graph: Path, fed: Feeds, output: Path) -> None:
        del fed
        config = HQQWeightOnlyQuantConfig(block_size=block_size)
        _four_bits(MatMulNBitsQuantizer(onnx.load(str(graph)), algo_config=config), output)

    return quantize


def gptq(block_size: int) -> Peer:
    """`MatMulNBitsQuantizer` with GPTQ, which it takes from Intel's neural-compressor."""

    def quantize(graph: Path, fed: Feeds, output: Path) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import GPTQWeightOnlyQuantConfig

        config = GPTQWeightOnlyQuantConfig(calibration_data_reader=Reader(fed), block_size=block_size)
        _four_bits(MatMulNBitsQuantizer(onnx.load(str(graph)), algo_config=config), output)

    return quantize


def _four_bits(quantizer: Any, output: Path) -> None:
    quantizer.process()
    quantizer.model.save_model_to_file(str(output), True)


PEERS: dict[str, Peer] = {
    "int8 quantize_dynamic": dynamic,
    "int8 quantize_static": static,
    "int8 quantize_static, products": static_products,
    "int4:32 MatMulNBits": nearest(32, False),
    "int4:32 MatMulNBits symmetric": nearest(32, True),
    "int4:32 MatMulNBits HQQ": half_quadratic(32),
    "int4:32 MatMulNBits GPTQ": gptq(32),
    "int4:128 MatMulNBits": nearest(128, False),
    "int4:128 MatMulNBits symmetric": nearest(128, True),
    "int4:128 MatMulNBits HQQ": half_quadratic(128),
    "int4:128 MatMulNBits GPTQ": gptq(128),
}
