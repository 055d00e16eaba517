"""The miniature's six engines in every precision, and one decoder layer with its head at full width."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from engine_bundles import quantized
from full_width import write_full_width
from sealing import seal

from sottovoce.calibration.ranges.calibrate import calibrate
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.engines.build import BuildOptions, BuiltEngine, build_engines
from sottovoce.runtime.manifest import STAGES

pytestmark = pytest.mark.usefixtures("rtx")
TARGET = "rtx-8.9"
TARGETS = [TARGET, *(pytest.param(target, marks=pytest.mark.slow) for target in ("rtx-8.6", "rtx-12.0"))]
MAX_OVERHEAD_BYTES = 30_000_000
LEAST_INT8 = 0.9


@pytest.fixture(scope="module")
def precisions(portable_miniature: Path, golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The miniature in each precision; what INT8 activations need was seen in one short conversation."""
    folder = tmp_path_factory.mktemp("precisions")
    for name in ("speech.wav", "picture.png"):
        (folder / name).write_bytes((golden_dir / name).read_bytes())
    short = {"reply": "", "captured": {"greedy": True, "max_new_tokens": 12}}
    item = {"task": "spoken_picture_question", "audio": "speech.wav", "images": ["picture.png"], **short}
    (folder / "set.jsonl").write_text(json.dumps(item) + "\n")
    calibrate(Bundle.open(portable_miniature), folder, folder / "ranges", allow_little_data=True)
    found = {"fp16": Path(shutil.copytree(portable_miniature, folder / "fp16.bundle"))}
    for precision in ("int8", "int8-weights", "int4-weights"):
        found[precision] = folder / f"{precision}.bundle"
        arguments = ["--precision", precision, "--ranges", str(folder / "ranges"), "-o", str(found[precision])]
        assert main(["quantize", str(portable_miniature), *arguments]) == 0
    return found


def check_sizes(bundle: Bundle, engines: list[BuiltEngine]) -> None:
    for engine in engines:
        spec = bundle.graph(engine.record.stage)
        weights = sum(bundle.manifest.files[name].bytes for name in (spec.file, *spec.data))
        assert engine.record.bytes <= 1.1 * weights + MAX_OVERHEAD_BYTES, engine.record


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-weights", "int4-weights"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_miniatures_six_engines(target: str, precision: str, precisions: dict[str, Path]) -> None:
    """INT8 is what is multiplied where weights and activations are, by the parser's and the builder's own word."""
    bundle = Bundle.open(precisions[precision])
    engines = build_engines(bundle, [target])
    assert [engine.record.stage for engine in engines] == list(STAGES)
    assert not any(engine.cached for engine in engines)
    check_sizes(bundle, engines)
    for engine in engines:
        report = engine.record.report
        shares = (report.int8_multiply_adds_share or 0.0, report.fused_int8_multiply_adds_share or 0.0)
        assert report.products > 0
        if precision == "int8":
            assert min(shares) >= LEAST_INT8, engine.record
        else:
            assert shares == (0.0, 0.0), engine.record


@pytest.mark.parametrize("precision", ["fp16", pytest.param("int8-weights", marks=pytest.mark.slow)])
def test_one_layer_and_head_at_full_width(precision: str, bundle: Path, tmp_path: Path) -> None:
    seal(bundle, {"language_model": write_full_width(bundle)})
    if precision != "fp16":
        bundle = quantized(bundle, tmp_path / "q", "language_model", precision)  # type: ignore[arg-type]
    opened = Bundle.open(bundle)
    engines = build_engines(opened, [TARGET], BuildOptions(stages=("language_model",)))
    check_sizes(opened, engines)
    print(f"\nfull width, {precision}: {engines[0].record.bytes / 1e6:.1f} MB in {engines[0].record.seconds:.1f} s")
