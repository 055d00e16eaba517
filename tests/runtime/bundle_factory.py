"""A bundle of the right form whose graphs and tables are only bytes, for what is checked before computing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sottovoce.runtime.contracts import CONTRACTS, cache_roles
from sottovoce.runtime.manifest import (
    FORMAT_VERSION,
    MODEL_FAMILY,
    STAGES,
    AudioFrontEnd,
    BundleManifest,
    EmbeddingTableSpec,
    FileRecord,
    GenerationSpec,
    GraphSpec,
    ImageFrontEnd,
    KVCacheSpec,
    PieceSpec,
    PromptSpec,
    Provenance,
    SpeechSpec,
    StateTokens,
    TensorSpec,
    VideoFrontEnd,
)
from sottovoce.runtime.records import write_record

WIDTH, TOKENS, CODE_ROWS = 8, 16, 12
Edit = Callable[[dict[str, Any]], None]


def graph_spec(stage: str) -> GraphSpec:
    contract = CONTRACTS[stage]
    past = cache_roles(1, "past") if contract.has_cache else []
    present = cache_roles(1, "present") if contract.has_cache else []
    return GraphSpec(
        file=f"graphs/{stage}.onnx",
        data=(f"graphs/{stage}.onnx.data",),
        dialect="portable",
        opset=24,
        precision="fp32",
        inputs=tuple(TensorSpec(role, role, "float32", (1,)) for role in (*contract.inputs, *past)),
        outputs=tuple(TensorSpec(role, role, "float32", (1,)) for role in (*contract.outputs, *present)),
        cache=KVCacheSpec(1, 1, 4, "float32", 64) if contract.has_cache else None,
    )


def speech_spec() -> SpeechSpec:
    return SpeechSpec(
        sample_rate=24000,
        samples_per_code=600,
        codes=8,
        begin_id=8,
        start_id=9,
        end_id=10,
        padding_id=11,
        max_codes=100,
        top_k=2,
        penalty=1.0,
        penalty_window=0,
        frame_width=4,
        first_piece=PieceSpec(20, 10, 0.1),
        later_pieces=PieceSpec(40, 10, 0.015),
        cut_window_samples=2401,
        cut_search_samples=1200,
        split_after=",.?!\n",
        min_piece_characters=5,
    )


def contents() -> dict[str, bytes]:
    files = {"tokenizer.json": b"{}"}
    files["token_embeddings.bin"] = bytes(TOKENS * WIDTH * 4)
    files["code_embeddings.bin"] = bytes(CODE_ROWS * 4 * 4)
    for stage in STAGES:
        files[f"graphs/{stage}.onnx"] = f"graph of {stage}".encode()
        files[f"graphs/{stage}.onnx.data"] = f"weights of {stage}".encode()
    return files


def manifest(files: dict[str, bytes]) -> BundleManifest:
    return BundleManifest(
        format_version=FORMAT_VERSION,
        model_family=MODEL_FAMILY,
        graphs={stage: graph_spec(stage) for stage in STAGES},
        tokenizer="tokenizer.json",
        token_embeddings=EmbeddingTableSpec("token_embeddings.bin", "float32", TOKENS, WIDTH),
        code_embeddings=EmbeddingTableSpec("code_embeddings.bin", "float32", CODE_ROWS, 4),
        audio=AudioFrontEnd(16000, 80, 25.0, 10.0, 32768.0, 7, 60.0, ((2, 2), (2, 2), (0, 2)), 0),
        image=ImageFrontEnd(224, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), False, 1, 12, True, 64),
        video=VideoFrontEnd(1.0, 4, 16),
        prompt=PromptSpec("<|im_start|>", "<|im_end|>", "images", "video", "plain", StateTokens()),
        generation=GenerationSpec((3,), 64, 32, 1.0, 0, 1.0, 1.0),
        speech=speech_spec(),
        provenance=Provenance("tests", "2026-01-01T00:00:00Z", "none", "0" * 64, {}),
        files={name: FileRecord(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
    )


def write_bundle(folder: Path, edit: Edit | None = None) -> Path:
    """Write the bundle into `folder`, the manifest changed by `edit`."""
    files = contents()
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    record = write_record(replace(manifest(files)))
    if edit is not None:
        edit(record)
    (folder / "bundle.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
