"""SmolLM2's language model by our exporter and our quantizer, with what `decode_ours.py` needs beside it."""

from __future__ import annotations

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


def write_stage(stage: LanguageModelStage, table: np.ndarray) -> Path:
    """Contract and embeddings beside a stage's graph; returns the folder."""
    folder = stage.bundle.path
    (folder / SPEC).write_text(json.dumps(write_record(stage.spec)))
    np.save(folder / TABLE, table)
    return folder


def our_stages(
    model: SmolLM2, host: Bundle, work: Path, precisions: tuple[str, ...], progress: Progress
) -> dict[str, Path]:
    """Folders by precision, float32 among them, made as `sottovoce export`, `calibrate` and `quantize` make them."""
    table = model.weights["model.embed_tokens.weight"].numpy()
    source = export_smollm2(model, host, work / "fp32")
    ranges = calibrate_stage(source, table, windows(model.tokenizer, False, *CALIBRATION), progress)
    stages = {"fp32": source}
    for place, precision in enumerate(precisions, 1):
        stages[precision] = quantize_stage(source, precision, ranges, work / precision.replace(":", "-"))
        progress.step("quantizing", place, len(precisions))
    return {name: write_stage(stage, table) for name, stage in stages.items()}
