"""Weights outside the protobuf: appended to one file, tensor by tensor, at offsets that can be memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import onnx

PAGE_BYTES = 4096
"""Large tensors start on a page, so that an engine may map them instead of copying."""
LINE_BYTES = 64
"""Small ones start on a cache line, so that a thousand biases do not cost a thousand pages."""
LARGE_BYTES = 64 * 1024

Weights = npt.NDArray[np.generic]


@dataclass(frozen=True)
class WeightBlocks:
    """A tensor that comes in pieces along its first axis, so that even the largest is never whole in memory."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    blocks: Iterable[Weights]


@dataclass(frozen=True)
class PackedInt4:
    """A tensor of 4-bit integers, two in a byte: of each pair in row-major order, the first has the low bits."""

    shape: tuple[int, ...]
    pairs: npt.NDArray[np.uint8]

    @classmethod
    def pack(cls, integers: npt.NDArray[np.int8]) -> PackedInt4:
        """From int8 values in -8…7."""
        flat = integers.reshape(-1).view(np.uint8)
        if flat.size % 2:
            flat = np.append(flat, np.uint8(0))
        pairs: npt.NDArray[np.uint8] = (flat[0::2] & np.uint8(0xF)) | (flat[1::2] << np.uint8(4))
        return cls(integers.shape, pairs)


class ExternalDataWriter:
    """The `.data` file of one graph.

    Only what is being appended is in memory, so a model of any size can be written. Used as a context manager; the
    file is complete when that is left without an exception.

    Args:
        path: where to write; the graph that refers to it must lie in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def __enter__(self) -> ExternalDataWriter:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, name: str, values: Weights | WeightBlocks | PackedInt4) -> onnx.TensorProto:
        """Write `values` (any shape, little-endian, row-major) and return the initializer that refers to them."""
        if isinstance(values, PackedInt4):
            tensor = self.append(name, values.pairs)
            tensor.data_type = onnx.TensorProto.INT4
            tensor.dims[:] = values.shape
            return tensor
        if not isinstance(values, WeightBlocks):
            values = WeightBlocks(values.dtype, values.shape, [values])
        length = prod(values.shape) * values.dtype.itemsize
        padding = -self._offset % (PAGE_BYTES if length >= LARGE_BYTES else LINE_BYTES)
        self._file.write(b"\0" * padding)
        self._offset += padding
        for block in values.blocks:
            self._file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        tensor = onnx.TensorProto(
            name=name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (("location", self.path.name), ("offset", self._offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self._offset += length
        if self._file.tell() != self._offset:
            raise ValueError(f"the pieces of {name!r} do not add up to its shape {values.shape}")
        return tensor
