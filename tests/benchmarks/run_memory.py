"""Peak memory of `sottovoce run` against its bar: the bundle's weights × 1.2 + 150 MB.

    python tests/benchmarks/run_memory.py [--quick] [--json]

Each bundle answers a recording, and a recording with a picture, in a process of its own; the figure is the one that the
command prints. The second bundle has a language model of 300 MB, so that the weights count. The third is the same in
fp16, which ONNX Runtime's CPU widens to fp32 when it loads it: its weights count as they are in memory. `--quick`:
neither this one nor the questions without a picture.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from checkpoint_configs import small_config  # noqa: E402  # the tests' folder is on the path only now
from checkpoint_factory import CheckpointRecipe, write_checkpoint  # noqa: E402

from sottovoce.export.export import ExportOptions, export  # noqa: E402
from sottovoce.runtime.assistant import Assistant  # noqa: E402
from sottovoce.runtime.console import Console  # noqa: E402
from sottovoce.runtime.manifest import Precision  # noqa: E402

GOLDEN = TESTS / "golden"
QUESTIONS = {"audio": ["--audio", "speech.wav"], "audio + picture": ["--audio", "speech.wav", "--image", "picture.png"]}


@dataclass(frozen=True)
class Measurement:
    """One run."""

    bundle: str
    question: str
    stored_mb: float
    weights_mb: float
    """As they are in memory: twice what is stored where fp16 is widened."""
    peak_mb: float

    @property
    def allowed_mb(self) -> float:
        return 1.2 * self.weights_mb + 150


def large_checkpoint(folder: Path) -> Path:
    """A checkpoint whose language model has 76 million random parameters."""
    small = small_config()
    llm = replace(
        small.language_model, hidden_size=768, intermediate_size=2304, num_layers=10, num_heads=12, num_kv_heads=12,
        head_size=64,
    )  # fmt: skip
    adapter = replace(small.audio.adapter, llm_hidden_size=768)
    config = replace(
        small,
        language_model=llm,
        vision=replace(small.vision, llm_hidden_size=768),
        audio=replace(small.audio, adapter=adapter),
    )
    return write_checkpoint(folder, CheckpointRecipe(config=config))


def measure(
    name: str, checkpoint: Path, folder: Path, questions: Sequence[str], precision: Precision = "fp32"
) -> list[Measurement]:
    bundle = folder / f"{name}.bundle"
    export(checkpoint, bundle, ExportOptions(precision=precision))
    with Assistant.open(bundle, verify_hashes=False) as assistant:
        stored_mb = assistant.bundle.weights_bytes / 1e6
        widening = 2 if any(assistant.widened_stages().values()) else 1
    rows = []
    for question in questions:
        words = QUESTIONS[question]
        asked = [str(GOLDEN / word) if "." in word else word for word in words]
        options = ["--greedy", "--max-new-tokens", "24", "-o", str(folder / "reply.wav"), "--json"]
        command = [sys.executable, "-m", "sottovoce.runtime", "run", str(bundle), *asked, *options]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(Measurement(name, question, stored_mb, widening * stored_mb, answer["peak_memory_mb"]))
    return rows


def main() -> int:
    """Print the table; exit code 1 above the bar."""
    console = Console(as_json="--json" in sys.argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        quick = "--quick" in sys.argv
        questions = list(QUESTIONS)[quick:]
        rows = measure("tiny", GOLDEN / "tiny-vita15", folder, questions)
        large = large_checkpoint(folder / "large")
        rows += measure("76M", large, folder, questions)
        if not quick:
            rows += measure("76M fp16", large, folder, questions, "fp16")
    columns = ["bundle", "question", "stored", "in memory", "peak", "allowed", "of allowed"]
    cells = [
        [r.bundle, r.question, f"{r.stored_mb:.0f} MB", f"{r.weights_mb:.0f} MB", f"{r.peak_mb:.0f} MB",
         f"{r.allowed_mb:.0f} MB", f"{100 * r.peak_mb / r.allowed_mb:.0f} %"]
        for r in rows
    ]  # fmt: skip
    console.table("peak memory of `sottovoce run`", columns, cells, [2, 3, 4, 5, 6])
    console.result({"rows": [{**vars(r), "allowed_mb": r.allowed_mb} for r in rows]})
    return int(any(r.peak_mb > r.allowed_mb for r in rows))


if __name__ == "__main__":
    sys.exit(main())
