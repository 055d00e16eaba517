"""What both of NVIDIA's libraries share: one logger a process, and engines that name their tensors."""

from __future__ import annotations

import functools
import importlib
from collections import deque
from typing import Any

import numpy as np

from sottovoce.runtime.backends.engine_profile import EngineRefusedError, EngineTensor

DATA_TYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32", "INT8": "int8", "BOOL": "bool",
}  # fmt: skip
MESSAGES_KEPT = 3


class HeardLogger:
    """TensorRT's logger of this process: there can be one. Its last errors become part of messages.

    Args:
        library: the module `tensorrt` or `tensorrt_rtx`.
    """

    def __init__(self, library: Any) -> None:
        messages: deque[str] = deque(maxlen=MESSAGES_KEPT)
        severities = (library.ILogger.Severity.INTERNAL_ERROR, library.ILogger.Severity.ERROR)

        class Heard(library.ILogger):  # type: ignore[misc, name-defined]  # a class of the library at hand
            """Keeps what is an error, and says nothing."""

            def __init__(self) -> None:
                library.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                """TensorRT calls this, from any thread."""
                if severity in severities:
                    messages.append(" ".join(msg.split()))

        self.messages = messages
        self.logger = Heard()


@functools.cache
def logger_of(library: str) -> HeardLogger:
    """The one logger of a library."""
    return HeardLogger(importlib.import_module(library))


def engine_tensors(library: Any, engine: Any) -> tuple[EngineTensor, ...]:
    """The inputs and outputs of an engine, in its order."""
    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        if kind not in DATA_TYPES:
            raise EngineRefusedError(f"{name!r} has the type {kind}")
        found.append(
            EngineTensor(
                name,
                np.dtype(DATA_TYPES[kind]),
                engine.get_tensor_mode(name) == library.TensorIOMode.INPUT,
                engine.get_tensor_location(name) == library.TensorLocation.HOST,
            )
        )
    return tuple(found)
