"""What a library is known to refuse, as data with the reason: said before a build begins, and not minutes into it.

Each was tried, or is in the library's own list. What is not here is left to the library, whose words are passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sottovoce.runtime.bundle import MANIFEST_FILE, Bundle
from sottovoce.runtime.engines.targets import EngineTarget, Library
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import GraphSpec, StageName

EXPORT_TARGETS = {"jetpack6": "jetpack6"}
"""`sottovoce export --target` for the dialects that are not that of `--target tensorrt`."""


@dataclass(frozen=True)
class Refusal:
    """One thing that a library does not take.

    Args:
        applies: whether a graph is such a thing.
        reason: why it is refused, as a clause.
        fix: what to do.
        source: how this is known.
    """

    libraries: tuple[Library, ...]
    applies: Callable[[GraphSpec], bool]
    reason: str
    fix: str
    source: str


REFUSALS = (
    Refusal(
        ("tensorrt_rtx",),
        lambda spec: spec.cache is not None and spec.cache.dtype == "int8" and spec.dialect == "portable",
        "its KV cache is int8, and the library's cache update takes float, half and bfloat16 only",
        "quantize the bundle again with kv_cache=fp16",
        "tried with RTX 1.7.1: `TensorScatter`: cache has type Int8 but must have type Float, Half, or BFloat16",
    ),
)


def check_target(bundle: Bundle, target: EngineTarget, stages: Iterable[StageName]) -> None:
    """Refuse graphs that the target cannot take, before anything is built.

    Raises:
        BundleError: names the stage, what it is, and how to get what the target takes.
    """
    accepted = ", ".join(target.precisions)
    for stage in stages:
        spec = bundle.graph(stage)
        if spec.cache is not None and spec.dialect not in target.dialects:
            raise _other_dialect(bundle, target, stage)
        if spec.precision not in target.precisions:
            message = f"graph {stage!r} is {spec.precision}; target {target.name!r} takes {accepted}"
            raise BundleError(message, file=bundle.path / MANIFEST_FILE, fix="quantize the bundle to one of these")
        for refusal in REFUSALS:
            if target.library in refusal.libraries and refusal.applies(spec):
                raise BundleError(
                    f"target {target.name!r} cannot take graph {stage!r}: {refusal.reason}",
                    file=bundle.path / MANIFEST_FILE,
                    fix=refusal.fix.format(stage=stage),
                )


def _other_dialect(bundle: Bundle, target: EngineTarget, stage: StageName) -> BundleError:
    dialect = bundle.graph(stage).dialect
    wanted = EXPORT_TARGETS.get(target.dialects[0], "tensorrt")
    return BundleError(
        f"graph {stage!r} is spelled in the dialect {dialect!r}, which target {target.name!r} cannot parse; "
        f"it takes {' or '.join(target.dialects)}",
        file=bundle.path / MANIFEST_FILE,
        fix=f"export the checkpoint for it: sottovoce export CHECKPOINT -o BUNDLE2 --target {wanted} --precision fp16",
    )
