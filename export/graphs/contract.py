"""A stage's files, its entry in the manifest, and the types of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import DataType, GraphSpec, KVCacheSpec, Precision, StageName, TensorSpec

TORCH_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
FLOAT_TYPES: dict[Precision, DataType] = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class Spelling:
    """What a graph was written in: a dialect's name and its opset."""

    dialect: str
    opset: int
    fixed_capacity: bool = False


@dataclass(frozen=True)
class StageFiles:
    """Where one stage's graph goes, and in which precision it computes.

    Args:
        stage: the stage's name, which names its files.
        bundle: the bundle's folder (or the one it is being written in); graphs go to its `graphs/`.
        precision: type of weights and arithmetic. Inputs and outputs are float32 in any case, but for the KV cache.
    """

    stage: StageName
    bundle: Path
    precision: Precision

    @property
    def graph(self) -> Path:
        """The graph without its weights."""
        return self.bundle / "graphs" / f"{self.stage}.onnx"

    @property
    def data(self) -> Path:
        """Its weights, in the same folder."""
        return self.graph.with_name(f"{self.graph.name}.data")

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return TORCH_TYPES[self.precision]

    def spec(
        self,
        spelling: Spelling,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        cache: KVCacheSpec | None = None,
    ) -> GraphSpec:
        """The stage's entry in the manifest."""
        return GraphSpec(
            file=f"graphs/{self.graph.name}",
            data=(f"graphs/{self.data.name}",),
            dialect=spelling.dialect,
            opset=spelling.opset,
            precision=self.precision,
            inputs=inputs,
            outputs=outputs,
            cache=cache,
        )


def narrowed(name: str, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`values` as `dtype`.

    Raises:
        SottovoceError: a value is beyond float16's range.
    """
    result = values.to(dtype)
    if dtype == torch.float16 and values.dtype != dtype and not torch.isfinite(result).all():
        largest = float(values.abs().max())
        raise SottovoceError(
            f"the tensor {name!r} holds {largest:g}, and float16 ends at {np.finfo(np.float16).max:g}",
            fix="export the stage that it belongs to as fp32: --precision STAGE=fp32",
        )
    return result
