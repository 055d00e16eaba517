"""The miniature's six engines in every precision, and one decoder layer with its head at full width. Minutes each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from engine_bundles import quantized, seal

from sottovoce.calibration.ranges.calibrate import calibrate
from sottovoce.demos.first_answer import TRAINED
from sottovoce.export.dialects import DIALECTS
from sottovoce.export.export import ExportOptions, export
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.decoder_builder import DecoderPlan, DecoderShape, DecoderWeightNames, build_decoder
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.engines.build import BuildOptions, BuiltEngine, build_engines
from sottovoce.runtime.manifest import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rtx")]
TARGET = "rtx-8.9"
MAX_OVERHEAD_BYTES = 30_000_000
LEAST_INT8 = 0.9
HALF_DECONVOLUTIONS = 0.8
"""TensorRT-RTX 1.7 has no INT8 kernels for the codec's transposed convolutions, 16 % of its multiply-adds."""
WIDTH, INNER, VOCABULARY, CONTEXT = 3584, 18944, 32768, 1024
"""VITA-1.5's language model, but for the number of its tokens and layers."""


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("miniature") / "fp16.bundle"
    export(TRAINED.checkpoint, bundle, ExportOptions(target="tensorrt", precision="fp16"))
    return bundle


@pytest.fixture(scope="module")
def ranges(miniature: Path, golden_dir: Path) -> Path:
    folder = miniature.parent / "conversations"
    folder.mkdir()
    for name in ("speech.wav", "picture.png"):
        (folder / name).write_bytes((golden_dir / name).read_bytes())
    short = {"reply": "", "captured": {"greedy": True, "max_new_tokens": 12}}
    item = {"task": "spoken_picture_question", "audio": "speech.wav", "images": ["picture.png"], **short}
    (folder / "set.jsonl").write_text(json.dumps(item) + "\n")
    calibrate(Bundle.open(miniature), folder, folder / "ranges", allow_little_data=True)
    return folder / "ranges"


def check_sizes(bundle: Bundle, engines: list[BuiltEngine]) -> None:
    for engine in engines:
        spec = bundle.graph(engine.record.stage)
        weights = sum(bundle.manifest.files[name].bytes for name in (spec.file, *spec.data))
        assert engine.record.bytes <= 1.1 * weights + MAX_OVERHEAD_BYTES, engine.record


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4-weights"])
def test_the_miniature_in_integers(precision: str, miniature: Path, ranges: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.bundle"
    arguments = ["quantize", str(miniature), "--precision", precision, "--ranges", str(ranges), "-o", str(small)]
    assert main(arguments) == 0
    bundle = Bundle.open(small)
    engines = build_engines(bundle, [TARGET])
    assert [engine.record.stage for engine in engines] == list(STAGES)
    check_sizes(bundle, engines)
    for engine in engines:
        report = engine.record.report
        shares = (report.int8_multiply_adds_share or 0.0, report.fused_int8_multiply_adds_share or 0.0)
        if precision == "int8":
            least = HALF_DECONVOLUTIONS if engine.record.stage == "codec" else LEAST_INT8
            assert shares[0] >= LEAST_INT8, engine.record
            assert shares[1] >= least, engine.record
        else:
            assert shares == (0.0, 0.0), engine.record


def test_the_miniature_in_half_precision(miniature: Path) -> None:
    bundle = Bundle.open(miniature)
    engines = build_engines(bundle, [TARGET])
    assert [engine.record.stage for engine in engines] == list(STAGES)
    check_sizes(bundle, engines)


def full_width(folder: Path) -> None:
    """Write one layer and a head of full width into the bundle, as its language model."""
    shape = DecoderShape(
        hidden_size=WIDTH,
        num_layers=1,
        num_heads=28,
        num_kv_heads=4,
        head_size=128,
        vocab_size=VOCABULARY,
        context_length=CONTEXT,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        query_key_value_bias=True,
        head_bias=False,
        prefix_attention=False,
    )
    rows = {"q_proj": WIDTH, "k_proj": 512, "v_proj": 512, "o_proj": WIDTH, "gate_proj": INNER, "up_proj": INNER}
    rows |= {"down_proj": WIDTH, "head": VOCABULARY}
    noise = torch.randn(WIDTH * INNER, generator=torch.Generator().manual_seed(5), dtype=torch.float32) / 60

    def read(name: str) -> torch.Tensor:
        part, kind = name.split(".")[-2:] if "." in name else (name, "weight")
        if kind == "bias" or part not in rows:
            return torch.ones(rows.get(part, WIDTH))
        columns = INNER if part == "down_proj" else WIDTH
        needed = rows[part] * columns
        return noise.repeat(-(-needed // noise.numel()))[:needed].reshape(rows[part], columns)

    plan = DecoderPlan(shape, DecoderWeightNames("layers", "norm", "head"), DIALECTS["portable"])
    seal(folder, {"language_model": build_decoder(plan, read, StageFiles("language_model", folder, "fp16"))})


@pytest.mark.parametrize("precision", ["fp16", "int8-weights"])
def test_one_layer_and_head_at_full_width(precision: str, bundle: Path, tmp_path: Path) -> None:
    full_width(bundle)
    if precision != "fp16":
        bundle = quantized(bundle, tmp_path / "q", "language_model", precision)  # type: ignore[arg-type]
    opened = Bundle.open(bundle)
    engines = build_engines(opened, [TARGET], BuildOptions(stages=("language_model",)))
    check_sizes(opened, engines)
    print(f"\nfull width, {precision}: {engines[0].record.bytes / 1e6:.1f} MB in {engines[0].record.seconds:.1f} s")
