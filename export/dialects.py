"""Which decoders are spelled how: a dialect for each family of engines, and a dialect for each `--target`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sottovoce.export.graphs.cpu_spelling import CpuSpelling
from sottovoce.export.graphs.decoder_spelling import DecoderSpelling, Heads
from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.export.graphs.portable_spelling import Opset23Spelling, PortableSpelling
from sottovoce.runtime.errors import SottovoceError

SpellingFactory = Callable[[GraphBuilder, Heads], DecoderSpelling]
"""Takes the graph being built and the decoder's heads."""


@dataclass(frozen=True)
class Dialect:
    """A way to spell decoders, and for whom. A `factory` of None: the dialect has its place, but is not built yet."""

    name: str
    opset: int
    audience: str
    factory: SpellingFactory | None
    fixed_capacity: bool = False
    """Whether the size of the cache is a number in the graph: TensorRT's in-place cache update must know it."""

    def spelling(self, graph: GraphBuilder, heads: Heads) -> DecoderSpelling:
        """The operators of this dialect, for one graph.

        Raises:
            SottovoceError: the dialect is not there yet.
        """
        if self.factory is None:
            raise SottovoceError(
                f"the dialect {self.name!r} ({self.audience}) is not there yet",
                fix=f"choose one of these targets: {', '.join(available_targets())}",
            )
        return self.factory(graph, heads)


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("portable", 24, "TensorRT-RTX, TensorRT 10.13, ONNX Runtime 1.24 and later", PortableSpelling, True),
        Dialect("portable-23", 23, "ONNX Runtime 1.23 and later", Opset23Spelling),
        Dialect("cpu", 23, "ONNX Runtime 1.23 and later on CPUs, with its own attention operator", CpuSpelling),
        Dialect("jetpack6", 20, "TensorRT 10.3 on JetPack 6", None),
    )
}

TARGETS: Mapping[str, str] = {"cpu": "cpu", "tensorrt": "portable", "jetpack6": "jetpack6"}
"""Which dialect each `--target` is spelled in today."""


def available_targets() -> list[str]:
    """The targets whose dialect is built."""
    return [target for target, name in TARGETS.items() if DIALECTS[name].factory is not None]


def dialect_for(target: str) -> Dialect:
    """The dialect of a `--target`.

    Raises:
        SottovoceError: the target is unknown, or its dialect is not there yet.
    """
    fix = f"choose one of: {', '.join(available_targets())}"
    if target not in TARGETS:
        raise SottovoceError(f"unknown target {target!r}", fix=fix)
    dialect = DIALECTS[TARGETS[target]]
    if dialect.factory is None:
        message = f"target {target!r} needs the dialect {dialect.name!r} ({dialect.audience}), which is not there yet"
        raise SottovoceError(message, fix=fix)
    return dialect
