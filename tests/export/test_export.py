"""The whole way: what is in an exported bundle, and what is refused before or during the work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factory import CheckpointRecipe, static_chunks_config, write_checkpoint
from safetensors.torch import load_file, save_file

from sottovoce.export import manifest_settings as settings
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.dialects import dialect_for
from sottovoce.export.export import ExportOptions, context_length, export
from sottovoce.export.verify import VerifyOptions, verify
from sottovoce.runtime.backends.optimized_graph import SUFFIX
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import CheckpointError, SottovoceError
from sottovoce.runtime.manifest import STAGES, Precision


class Interrupter:
    """A progress display during which somebody presses Ctrl-C."""

    def __init__(self, label: str) -> None:
        self.label = label

    def step(self, label: str, done: int, total: int) -> None:
        if label == self.label:
            raise KeyboardInterrupt


def test_the_runtime_opens_it_and_every_hash_is_right(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle, verify_hashes=True).manifest
    on_disk = {path.relative_to(tiny_bundle).as_posix() for path in tiny_bundle.rglob("*") if path.is_file()}
    kept = {name for name in on_disk if name.endswith(SUFFIX)}  # by other tests, which have loaded its graphs
    assert on_disk - kept == {"bundle.json", *manifest.files}
    assert list(manifest.graphs) == list(STAGES)


def test_what_the_manifest_says_of_the_checkpoint(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    cache = manifest.graphs["language_model"].cache
    assert cache is not None
    assert (cache.layers, cache.kv_heads, cache.head_size, cache.max_length) == (3, 2, 32, 32768)
    assert manifest.generation.stop_ids[:1] == (555,)
    assert manifest.generation.context_length == 32768
    speech = manifest.speech
    assert (speech.codes, speech.begin_id, speech.start_id, speech.end_id, speech.padding_id) == (64, 64, 65, 66, 67)
    assert (speech.samples_per_code, speech.sample_rate, speech.frame_width) == (600, 24000, 32)
    assert manifest.image.tokens_per_tile == 64
    assert manifest.provenance.checkpoint == "tiny-vita15"
    assert manifest.provenance.checkpoint_sha256 == Checkpoint.open(tiny_checkpoint).fingerprint()
    assert str(tiny_checkpoint.parent) not in (tiny_bundle / "bundle.json").read_text(encoding="utf-8")


def test_audio_lengths_follow_the_table(tiny_bundle: Path, golden_json: dict[str, Any]) -> None:
    audio = Bundle.open(tiny_bundle).manifest.audio
    for frames, _, by_formula in golden_json["audio"]["length_table"]:
        mask = np.ones(frames)
        for start, stride in audio.subsampling:
            mask = mask[start::stride]
        assert len(mask) == by_formula


def test_tables_are_the_checkpoints(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    checkpoint, manifest = Checkpoint.open(tiny_checkpoint), Bundle.open(tiny_bundle).manifest
    tokens = np.fromfile(tiny_bundle / manifest.token_embeddings.file, np.float32).reshape(640, 128)
    np.testing.assert_array_equal(tokens, checkpoint.component_state("language_model")["model.embed_tokens.weight"])
    codes = np.fromfile(tiny_bundle / manifest.code_embeddings.file, np.float32).reshape(68, 32)
    np.testing.assert_array_equal(codes, checkpoint.component_state("speech_decoder")["embedding.weight"])


def test_half_precision_is_half_the_size_with_float32_ends(tiny_bundle: Path, tiny_half_bundle: Path) -> None:
    whole, half = Bundle.open(tiny_bundle), Bundle.open(tiny_half_bundle)
    assert half.weights_bytes < 0.55 * whole.weights_bytes
    for stage in STAGES:
        spec = half.graph(stage)
        assert spec.precision == "fp16"
        ends = [t for t in (*spec.inputs, *spec.outputs) if not t.role.startswith(("past_", "present_"))]
        assert {tensor.dtype for tensor in ends} <= {"float32", "int64"}
        assert spec.cache is None or spec.cache.dtype == "float16"


def test_prompts_are_in_three_kinds_and_name_the_model(tiny_bundle: Path) -> None:
    prompt = Bundle.open(tiny_bundle).manifest.prompt
    texts = {prompt.system_image, prompt.system_video, prompt.system_plain}
    assert len(texts) == 3
    assert all("VITA" in text for text in texts)
    assert (prompt.states.question, prompt.states.not_addressed, prompt.states.typed) == ("☞", "☟", "☜")


def test_a_device_gets_a_context_it_has_memory_for(tiny_checkpoint: Path) -> None:
    """Where the cache is allocated whole, the model's own 32768 positions would be gigabytes."""
    checkpoint = Checkpoint.open(tiny_checkpoint)
    chosen = {
        target: context_length(checkpoint, ExportOptions(target=target), dialect_for(target))
        for target in ("cpu", "tensorrt", "jetpack6")
    }
    assert chosen == {"cpu": 32768, "tensorrt": 8192, "jetpack6": 8192}
    longer = ExportOptions(target="tensorrt", context_length=20000)
    assert context_length(checkpoint, longer, dialect_for("tensorrt")) == 20000


def test_precision_of_each_stage() -> None:
    assert ExportOptions().stage_precision("codec") == "fp32"
    assert ExportOptions(target="tensorrt").stage_precision("codec") == "fp16"
    mixed = ExportOptions(target="tensorrt", precision={"codec": "fp32"})
    assert (mixed.stage_precision("codec"), mixed.stage_precision("language_model")) == ("fp32", "fp16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(target="toaster"), "unknown target 'toaster'"),
        (ExportOptions(precision="int3"), "unknown precision 'int3'"),  # type: ignore[arg-type]
        (ExportOptions(precision={"ears": "fp16"}), "unknown stage 'ears'"),
        (ExportOptions(context_length=40000), "40000.*64 to 32768"),
        (ExportOptions(context_length=0), "64 to 32768"),
    ],
)
def test_options_that_will_not_do(options: ExportOptions, message: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SottovoceError, match=message) as problem:
        export(tiny_checkpoint, tmp_path / "a.bundle", options)
    assert problem.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ["exporting audio_encoder"])
def test_ctrl_c_while_exporting_leaves_nothing(label: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(tiny_checkpoint, tmp_path / "a.bundle", progress=Interrupter(label))
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_not_a_number_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    shard = folder / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    tensors["model.audio_encoder.adpter.project.bias"][3] = torch.nan
    save_file(tensors, shard, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.audio_encoder\.adpter\.project\.bias"):
        export(folder, tmp_path / "a.bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="llama"):
        export(tmp_path / "checkpoint", tmp_path / "a.bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_another_checkpoint_of_the_layout_equals_pytorch(precision: Precision, tmp_path: Path) -> None:
    """Other sizes, static audio chunks, BatchNorm and ReLU, blocks of type 2, six shards, bfloat16."""
    recipe = CheckpointRecipe(static_chunks_config(), seed=11, shards=6, dtype="bfloat16")
    folder = write_checkpoint(tmp_path / "checkpoint", recipe)
    export(folder, tmp_path / "a.bundle", ExportOptions(precision=precision))
    report = verify(tmp_path / "a.bundle", str(folder), VerifyOptions())
    assert report.first_divergence is None
    assert {stage.stage for stage in report.stages} == set(STAGES)
    assert report.ok


def test_a_reply_may_begin_with_few_codes_if_the_codec_looks_no_further_than_the_context(tiny_bundle):
    speech = Bundle.open(tiny_bundle).manifest.speech
    reach = speech.onset[0].padding_codes
    assert 0 < reach <= settings.PADDING_CODES
    assert [piece.chunk_codes for piece in speech.onset] == list(settings.ONSET_CODES)
    assert settings.onset(settings.PADDING_CODES + 1) == ()
