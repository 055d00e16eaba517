"""Weights outside the protobuf: appended to one file, tensor by tensor, at offsets that can be memory-mapped."""

from __future__ import annotations

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


class ExternalDataWriter:
    """The `.data` file of one graph.

    Only the tensor being appended is in memory, so a model of any size is written in the memory of its largest tensor.
    Used as a context manager; the file is complete when it is left without an exception.

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

    def append(self, name: str, values: Weights) -> onnx.TensorProto:
        """Write `values` (any shape, little-endian, row-major) and return the initializer that refers to them."""
        values = np.ascontiguousarray(values)
        alignment = PAGE_BYTES if values.nbytes >= LARGE_BYTES else LINE_BYTES
        padding = -self._offset % alignment
        self._file.write(b"\0" * padding)
        self._offset += padding
        self._file.write(values.reshape(-1).view(np.uint8).data)
        tensor = onnx.TensorProto(
            name=name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (("location", self.path.name), ("offset", self._offset), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._offset += values.nbytes
        return tensor
