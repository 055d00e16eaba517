"""A checkpoint in, a bundle out: the whole way in one call."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from sottovoce.calibration.bundles.graph_contract import check_graph
from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.export import manifest_settings as settings
from sottovoce.export.checkpoint.extras import read_extras
from sottovoce.export.checkpoint.folder import resolve_checkpoint
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.dialects import Dialect, dialect_for
from sottovoce.export.embedding_tables import write_table
from sottovoce.export.graphs.contract import TORCH_TYPES, StageFiles
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.stage_exports import StageExporter, stage_bytes
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import (
    FORMAT_VERSION,
    MODEL_FAMILY,
    STAGES,
    BundleManifest,
    EmbeddingTableSpec,
    GraphSpec,
    Precision,
    Provenance,
    StageName,
    StagePrecision,
)
from sottovoce.runtime.progress import Progress, SilentProgress
from sottovoce.runtime.records import write_record

DEFAULT_PRECISION: Mapping[str, Precision] = {"cpu": "fp32"}
"""Of a target; all others have fast half precision."""
RECORDED_VERSIONS = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")
TOKEN_TABLE, CODE_TABLE, TOKENIZER = "token_embeddings.bin", "code_embeddings.bin", "tokenizer.json"
MIN_CONTEXT = 64
FIXED_CONTEXT = 8192
"""Default where the cache has its full size from the start: half a gigabyte at 7B in half precision."""


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        target: what will run the bundle: a key of `sottovoce.export.dialects.TARGETS`.
        precision: of all stages, or stage by stage (the others have the target's default); None is the target's
            default: fp32 for a CPU, fp16 for everything else.
        force: replace the bundle that is in the output's place.
        ignored_config_keys: configuration keys of the checkpoint to drop unread.
        context_length: positions a conversation may have; None is what the model was made for, or at most 8192 where
            the target takes the memory for them at once (tensorrt, jetpack6).
    """

    target: str = "cpu"
    precision: Precision | Mapping[str, Precision] | None = None
    force: bool = False
    ignored_config_keys: tuple[str, ...] = ()
    context_length: int | None = None

    def stage_precision(self, stage: StageName) -> Precision:
        """The precision one stage is exported in."""
        default = DEFAULT_PRECISION.get(self.target, "fp16")
        if self.precision is None:
            return default
        if isinstance(self.precision, str):
            return self.precision
        return self.precision.get(stage, default)


@dataclass(frozen=True)
class StageReport:
    """One exported graph."""

    stage: str
    dialect: str
    opset: int
    precision: StagePrecision
    bytes: int


@dataclass(frozen=True)
class ExportReport:
    """What was written, and what a person should know about it."""

    bundle: Path
    bytes: int
    stages: tuple[StageReport, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        return {"bytes": self.bytes, "stages": write_record(self.stages), "notes": list(self.notes)}


def export(
    checkpoint: str | os.PathLike[str],
    bundle: str | os.PathLike[str],
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write `bundle` from a checkpoint: six graphs, two embedding tables, the tokenizer and the manifest.

    Args:
        checkpoint: a folder, or a Hugging Face id.
        bundle: the folder to write; it appears when it is complete.
        options: how; by default for a CPU.
        progress: told of each step.

    Raises:
        SottovoceError: the checkpoint, the options or the output's place will not do, or the disk is full. Nothing is
            left behind then.
    """
    options, progress = options or ExportOptions(), progress or SilentProgress()
    _check_options(options)
    dialect = dialect_for(options.target)
    with BundleWriter(Path(bundle), force=options.force) as writer:
        source = Checkpoint.open(resolve_checkpoint(os.fspath(checkpoint)), options.ignored_config_keys)
        extras = read_extras(source.folder)
        positions = context_length(source, options, dialect)
        precisions = {stage: options.stage_precision(stage) for stage in STAGES}
        writer.require_space(_estimated_bytes(source, precisions))
        exporter = StageExporter(source, dialect, positions, progress)
        graphs: dict[str, GraphSpec] = {}
        for stage, precision in precisions.items():
            graphs[stage] = exporter.export(StageFiles(stage, writer.folder, precision))
            check_graph(writer.folder, graphs[stage])
            dialect.check_operators(writer.folder / graphs[stage].file)
        reach = CodecDecoder(source.config.codec).receptive_field_codes
        notes = _notes(source, options, reach)
        manifest = writer.seal(
            BundleManifest(
                format_version=FORMAT_VERSION,
                model_family=MODEL_FAMILY,
                graphs=graphs,
                tokenizer=writer.copy(source.tokenizer, TOKENIZER),
                token_embeddings=_token_table(writer, source, precisions["language_model"]),
                code_embeddings=_code_table(writer, source, precisions["speech_codes"]),
                audio=settings.audio_front_end(source.config),
                image=settings.image_front_end(source.config, extras),
                video=settings.VIDEO,
                prompt=settings.prompt(extras),
                generation=settings.generation(source.config, positions),
                speech=settings.speech(source.config.speech_decoder, source.config.codec, reach),
                provenance=_provenance(source, os.fspath(checkpoint), notes, progress),
                files={},
            ),
            progress,
        )
        writer.publish()
    return _report(writer.path, manifest)


def _check_options(options: ExportOptions) -> None:
    if options.precision is None:
        return
    given = {"": options.precision} if isinstance(options.precision, str) else options.precision
    for stage, precision in given.items():
        if stage and stage not in STAGES:
            raise SottovoceError(f"precision for an unknown stage {stage!r}", fix=f"use one of: {', '.join(STAGES)}")
        if precision not in TORCH_TYPES:
            raise SottovoceError(f"unknown precision {precision!r}", fix=f"use one of: {', '.join(TORCH_TYPES)}")


def context_length(checkpoint: Checkpoint, options: ExportOptions, dialect: Dialect) -> int:
    """How many positions a conversation will have: as asked for, or the default of checkpoint and target.

    Raises:
        SottovoceError: more were asked for than the model was made for, or too few to talk.
    """
    longest = checkpoint.config.language_model.max_positions
    default = min(longest, FIXED_CONTEXT) if dialect.fixed_capacity else longest
    chosen = default if options.context_length is None else options.context_length
    if not min(MIN_CONTEXT, longest) <= chosen <= longest:
        message = f"the context length is {chosen}, and this model can have {MIN_CONTEXT} to {longest} positions"
        raise SottovoceError(message, file=checkpoint.folder, fix="choose one in that range with --context-length")
    return chosen


def _estimated_bytes(checkpoint: Checkpoint, precisions: Mapping[StageName, Precision]) -> int:
    config = checkpoint.config
    itemsize = {stage: TORCH_TYPES[precision].itemsize for stage, precision in precisions.items()}
    graphs = sum(stage_bytes(checkpoint, stage, size) for stage, size in itemsize.items())
    tokens = config.language_model.vocab_size * config.language_model.hidden_size * itemsize["language_model"]
    return graphs + tokens + checkpoint.tokenizer.stat().st_size


def _token_table(writer: BundleWriter, checkpoint: Checkpoint, precision: Precision) -> EmbeddingTableSpec:
    name = "model.embed_tokens.weight"
    return write_table(writer, TOKEN_TABLE, (name, checkpoint.component_state("language_model")[name]), precision)


def _code_table(writer: BundleWriter, checkpoint: Checkpoint, precision: Precision) -> EmbeddingTableSpec:
    name = "embedding.weight"
    return write_table(writer, CODE_TABLE, (name, checkpoint.component_state("speech_decoder")[name]), precision)


def _notes(checkpoint: Checkpoint, options: ExportOptions, reach: int) -> tuple[str, ...]:
    config = checkpoint.config
    notes = list(config.notes)
    if options.ignored_config_keys:
        notes.append(f"these configuration keys were ignored: {', '.join(options.ignored_config_keys)}")
    if reach > settings.PADDING_CODES:
        notes.append(
            f"the codec looks {reach} codes to each side and streamed pieces have {settings.PADDING_CODES}: "
            "streamed audio differs slightly from audio that is decoded whole"
        )
    return tuple(notes)


def _provenance(checkpoint: Checkpoint, reference: str, notes: tuple[str, ...], progress: Progress) -> Provenance:
    def tell(done: int, total: int) -> None:
        progress.step("hashing the checkpoint", done, total)

    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in RECORDED_VERSIONS}}
    return Provenance(
        exporter=f"sottovoce {metadata.version('sottovoce')}",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        checkpoint=reference if not Path(reference).expanduser().exists() else checkpoint.folder.resolve().name,
        checkpoint_sha256=checkpoint.fingerprint(tell),
        versions=versions,
        notes=notes,
    )


def _report(path: Path, manifest: BundleManifest) -> ExportReport:
    def weights(spec: GraphSpec) -> int:
        return sum(manifest.files[name].bytes for name in (spec.file, *spec.data))

    stages = tuple(
        StageReport(stage, spec.dialect, spec.opset, spec.precision, weights(spec))
        for stage, spec in manifest.graphs.items()
    )
    total = sum(record.bytes for record in manifest.files.values())
    return ExportReport(path, total, stages, manifest.provenance.notes)
