"""What each stage must offer, by role; a bundle whose graphs say otherwise is refused when it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import BundleManifest, EmbeddingTableSpec, GraphSpec, StageName, TensorSpec
from sottovoce.runtime.stream_contract import check_stream, state_roles, stream_inputs

ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}
FIX = "export the checkpoint again with this version of sottovoce"


@dataclass(frozen=True)
class StageContract:
    """Roles of a stage's tensors, beside those of a cache (`cache_roles`) or a stream (`stream_inputs`)."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    has_cache: bool = False
    may_stream: bool = False


CONTRACTS: dict[StageName, StageContract] = {
    "audio_encoder": StageContract(("features",), ("embeddings",), may_stream=True),
    "vision_encoder": StageContract(("pixels",), ("embeddings",)),
    "language_model": StageContract(("embeddings", "cache_length"), ("logits",), has_cache=True),
    "speech_text": StageContract(("frames",), ("conditioned",)),
    "speech_codes": StageContract(("embeddings", "cache_length"), ("logits",), has_cache=True),
    "codec": StageContract(("codes",), ("samples",)),
}


def tensor_by_role(tensors: tuple[TensorSpec, ...], role: str) -> TensorSpec:
    """The tensor that plays `role`; contracts were checked, so it is there."""
    return next(tensor for tensor in tensors if tensor.role == role)


def cache_roles(layers: int, time: str) -> list[str]:
    """`past_key.0, past_value.0, past_key.1, …` for `time` "past"; the same with "present"."""
    return [f"{time}_{kind}.{layer}" for layer in range(layers) for kind in ("key", "value")]


def check_contracts(manifest: BundleManifest, file: Path) -> None:
    """Check every graph's roles and the numbers that must agree between graphs, tables and settings.

    Raises:
        BundleError: names the stage, what it has and what it must have.
    """
    for stage, contract in CONTRACTS.items():
        _check_stage(stage, contract, manifest.graphs[stage], file)
        check_stream(stage, manifest.graphs[stage], manifest.audio, file)
    for name, table in (("token_embeddings", manifest.token_embeddings), ("code_embeddings", manifest.code_embeddings)):
        _check_table(name, table, manifest, file)
    speech = manifest.speech
    rules = {
        "speech.frame_width must divide token_embeddings.width": (
            speech.frame_width > 0 and manifest.token_embeddings.width % speech.frame_width == 0
        ),
        "speech ids must be rows of code_embeddings": all(
            0 <= row < manifest.code_embeddings.rows
            for row in (speech.begin_id, speech.start_id, speech.end_id, speech.padding_id)
        ),
        "speech.codes must be between 1 and the rows of code_embeddings": (
            0 < speech.codes <= manifest.code_embeddings.rows
        ),
        "speech.samples_per_code, sample_rate and max_codes must be positive": (
            min(speech.samples_per_code, speech.sample_rate, speech.max_codes) > 0
        ),
        "chunk_codes of a piece must be positive, padding_codes not negative": all(
            piece.chunk_codes > 0 and piece.padding_codes >= 0
            for piece in (speech.first_piece, speech.later_pieces, *speech.onset)
        ),
        "generation.context_length and max_new_tokens must be positive": (
            min(manifest.generation.context_length, manifest.generation.max_new_tokens) > 0
        ),
        "generation.stop_ids must not be empty": bool(manifest.generation.stop_ids),
    }
    for rule, holds in rules.items():
        if not holds:
            raise BundleError(rule, file=file, fix=FIX)


def _check_stage(stage: str, contract: StageContract, spec: GraphSpec, file: Path) -> None:
    state_inputs: list[str] = []
    state_outputs: list[str] = []
    if contract.has_cache != (spec.cache is not None):
        expected = "must have" if contract.has_cache else "has no"
        raise BundleError(f"graph {stage!r} {expected} a cache", file=file, fix=FIX)
    if spec.stream is not None and not contract.may_stream:
        raise BundleError(f"graph {stage!r} has a stream; only 'audio_encoder' may", file=file, fix=FIX)
    if spec.cache is not None:
        cache = spec.cache
        if min(cache.layers, cache.kv_heads, cache.head_size, cache.max_length) <= 0:
            raise BundleError(f"graph {stage!r} has a cache of no size: {cache}", file=file, fix=FIX)
        state_inputs, state_outputs = cache_roles(cache.layers, "past"), cache_roles(cache.layers, "present")
    elif spec.stream is not None:
        state_inputs, state_outputs = stream_inputs(spec.stream), state_roles(spec.stream, "present")
    _check_roles(f"inputs of graph {stage!r}", spec.inputs, [*contract.inputs, *state_inputs], file)
    _check_roles(f"outputs of graph {stage!r}", spec.outputs, [*contract.outputs, *state_outputs], file)


def _check_roles(what: str, tensors: tuple[TensorSpec, ...], expected: list[str], file: Path) -> None:
    roles = [tensor.role for tensor in tensors]
    if sorted(roles) != sorted(expected):
        missing, extra = sorted(set(expected) - set(roles)), sorted(set(roles) - set(expected))
        message = f"{what} have other roles than expected: missing {missing or 'none'}, not known {extra or 'none'}"
        raise BundleError(message, file=file, fix=FIX)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise BundleError(f"{what} bear the same name twice", file=file, fix=FIX)


def _check_table(name: str, table: EmbeddingTableSpec, manifest: BundleManifest, file: Path) -> None:
    if table.rows <= 0 or table.width <= 0:
        raise BundleError(f"{name} has {table.rows} rows of width {table.width}", file=file, fix=FIX)
    if (table.scales is not None) != (table.dtype == "int8"):
        raise BundleError(f"{name} is {table.dtype} with scales {table.scales}; only int8 has them", file=file, fix=FIX)
    sizes = {table.file: table.rows * table.width * ITEM_BYTES[table.dtype]}
    if table.scales is not None:
        sizes[table.scales] = table.rows * ITEM_BYTES["float32"]
    for used, expected in sizes.items():
        found = manifest.files[used].bytes
        if found != expected:
            message = f"{name}: {used!r} has {found} bytes, its shape and type need {expected}"
            raise BundleError(message, file=file, fix=FIX)
