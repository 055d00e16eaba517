"""What engines can be built for: which library builds them, for which GPU, and which graphs it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import StagePrecision

Library = Literal["tensorrt", "tensorrt_rtx"]
"""The Python module: NVIDIA's TensorRT 10 and 11, or TensorRT for RTX, which builds for GPUs that are not here."""


@dataclass(frozen=True)
class EngineTarget:
    """One choice of `sottovoce build --target`."""

    name: str
    library: Library
    compute_capability: str | None
    """As in "8.9"; None: that of the GPU which is here."""
    dialects: tuple[str, ...]
    """Decoders spelled so can be parsed."""
    precisions: tuple[StagePrecision, ...]
    """What the target's engines take; see `refusals` for what they do not."""
    audience: str

    @property
    def needs_gpu(self) -> bool:
        """Whether engines are built on the device that they run on."""
        return self.compute_capability is None


_ALL: tuple[StagePrecision, ...] = ("fp32", "fp16", "int8", "int8-weights", "int4-weights")
TARGETS: Mapping[str, EngineTarget] = {
    target.name: target
    for target in (
        EngineTarget("rtx-8.6", "tensorrt_rtx", "8.6", ("portable", "portable-23"), _ALL, "GeForce RTX 30, RTX A"),
        EngineTarget("rtx-8.9", "tensorrt_rtx", "8.9", ("portable", "portable-23"), _ALL, "GeForce RTX 40, RTX Ada"),
        EngineTarget("rtx-12.0", "tensorrt_rtx", "12.0", ("portable", "portable-23"), _ALL, "GeForce RTX 50"),
        EngineTarget(
            "local", "tensorrt", None, ("portable", "portable-23", "jetpack6"), _ALL, "the GPU of this machine"
        ),
        EngineTarget("jetpack6", "tensorrt", None, ("jetpack6",), _ALL, "Jetson Orin with JetPack 6 (TensorRT 10.3)"),
        EngineTarget("jetpack7", "tensorrt", None, ("portable", "portable-23"), _ALL, "JetPack 7 (TensorRT 10.13)"),
    )
}


def target_named(name: str) -> EngineTarget:
    """The target of that name.

    Raises:
        InputError: there is none; the fix lists those there are.
    """
    if name not in TARGETS:
        raise InputError(f"unknown target {name!r}", fix=f"choose one of: {', '.join(TARGETS)}")
    return TARGETS[name]
