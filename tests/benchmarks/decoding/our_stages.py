"""SmolLM2's language model by our exporter and our quantizer, with what `decode_ours.py` needs beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from smollm2.checkpoint import SmolLM2
from smollm2.stage import LanguageModelStage, calibrate_stage, export_smollm2, quantize_stage
from smollm2.text import windows

from decoding.stage_files import SPEC, TABLE
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.progress import Progress
from sottovoce.runtime.records import write_record

CALIBRATION = (16, 256)
"""Windows, and tokens of each, of text that no prompt is from."""
REPOSITORY = Path(__file__).resolve().parents[3]
MADE_BY = ("export", "calibration", "runtime/manifest.py", "tests/benchmarks/smollm2", "tests/benchmarks/decoding")
"""What a stage depends on: while none of it changes, the stages of the last run are those that would be made."""
KEY = "made_by.txt"


def write_stage(stage: LanguageModelStage, table: np.ndarray) -> None:
    """Contract and embeddings beside a stage's graph."""
    folder = stage.bundle.path
    (folder / SPEC).write_text(json.dumps(write_record(stage.spec)))
    np.save(folder / TABLE, table)


def our_stages(
    model: SmolLM2, host: Bundle, work: Path, precisions: tuple[str, ...], progress: Progress
) -> dict[str, Path]:
    """Folders by precision, float32 among them, made as `sottovoce export`, `calibrate` and `quantize` make them."""
    folders = {name: work / name.replace(":", "-") for name in ("fp32", *precisions)}
    key = _key(model)
    if all((folder / KEY).is_file() and (folder / KEY).read_text() == key for folder in folders.values()):
        return folders
    _make_stages(model, host, folders, progress)
    for folder in folders.values():
        (folder / KEY).write_text(key)
    return folders


def _make_stages(model: SmolLM2, host: Bundle, folders: dict[str, Path], progress: Progress) -> None:
    table = model.weights["model.embed_tokens.weight"].numpy()
    source = export_smollm2(model, host, folders["fp32"])
    ranges = calibrate_stage(source, table, windows(model.tokenizer, False, *CALIBRATION), progress)
    write_stage(source, table)
    precisions = [name for name in folders if name != "fp32"]
    for place, precision in enumerate(precisions, 1):
        write_stage(quantize_stage(source, precision, ranges, folders[precision]), table)
        progress.step("quantizing", place, len(precisions))


def _key(model: SmolLM2) -> str:
    """Of all files that make a stage, and of the weights that go in."""
    sources = [file for name in MADE_BY for file in sorted((REPOSITORY / name).rglob("*.py"))]
    sources += [REPOSITORY / name for name in MADE_BY if name.endswith(".py")]
    some_weights = model.weights["model.embed_tokens.weight"].numpy()[::100].tobytes()
    return hashlib.sha256(b"\0".join([some_weights, *(file.read_bytes() for file in sources)])).hexdigest()
