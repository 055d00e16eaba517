"""`make demo`: export the checkpoint that ships, answer a recorded question, leave `reply.wav`.

The bundle is kept in `out/`, so that the second run answers at once.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sottovoce.export.export import ExportOptions, export
from sottovoce.runtime import Assistant, AudioChunk, ReplyDone, TextDelta, read_audio
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.errors import BundleError, SottovoceError
from sottovoce.runtime.features.audio_file import WavWriter

REPOSITORY = Path(__file__).resolve().parents[1]
REPLY = Path("reply.wav")
BUNDLES = Path("out")


@dataclass(frozen=True)
class Demonstration:
    """A checkpoint and a recorded question for it."""

    name: str
    checkpoint: Path
    question: Path
    words: str
    remark: str
    max_new_tokens: int | None = None


TRAINED = Demonstration(
    name="miniature",
    checkpoint=REPOSITORY / "demos" / "miniature" / "checkpoint",
    question=REPOSITORY / "demos" / "miniature" / "question.wav",
    words="what is seven plus five",
    remark="",
)
RANDOM = Demonstration(
    name="tiny",
    checkpoint=REPOSITORY / "tests" / "golden" / "tiny-vita15",
    question=REPOSITORY / "tests" / "golden" / "speech.wav",
    words="(a recording of 1.7 s)",
    remark="This checkpoint's weights are random: it shows the whole way at work, and answers noise.",
    max_new_tokens=24,
)


def main() -> int:
    """Run the demonstration; returns the exit code."""
    console = Console()
    shown = TRAINED if (TRAINED.checkpoint / "config.json").is_file() else RANDOM
    try:
        bundle = prepared_bundle(shown, console)
        answer(shown, bundle, console)
    except SottovoceError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def prepared_bundle(shown: Demonstration, console: Console) -> Path:
    """The demonstration's bundle: the one in `out/` if it is whole and newer than its checkpoint, else exported now."""
    bundle = BUNDLES / f"{shown.name}.bundle"
    newest = max(file.stat().st_mtime for file in shown.checkpoint.rglob("*") if file.is_file())
    try:
        Bundle.open(bundle)
        if (bundle / "bundle.json").stat().st_mtime > newest:
            return bundle
    except BundleError:
        pass  # none yet, or of another version
    console.say(f"exporting {shown.checkpoint.relative_to(REPOSITORY)} to {bundle} (once)")
    BUNDLES.mkdir(exist_ok=True)
    started = time.perf_counter()
    with console.progress() as progress:
        report = export(str(shown.checkpoint), bundle, ExportOptions(force=True), progress)
    console.say(f"exported six graphs, {report.bytes / 1e6:.0f} MB, in {time.perf_counter() - started:.1f} s")
    return bundle


def answer(shown: Demonstration, bundle: Path, console: Console) -> None:
    """Ask the recorded question; print question, answer and times; write the spoken reply."""
    if shown.remark:
        console.say(shown.remark, style="yellow")
    started = time.perf_counter()
    with Assistant.open(bundle) as assistant:
        ready_ms = 1000 * (time.perf_counter() - started)
        conversation = assistant.conversation(greedy=True, max_new_tokens=shown.max_new_tokens)
        console.say(f"\nquestion  {shown.words}")
        console.say("answer    ", end="")
        with WavWriter(REPLY, assistant.sample_rate) as wav:
            for event in conversation.ask(audio=read_audio(shown.question)):
                match event:
                    case TextDelta(text):
                        console.say(text, end="")
                    case AudioChunk(samples):
                        wav.append(samples)
                    case ReplyDone() as done:
                        pass
        console.say(f"\nspoken    {REPLY} ({wav.samples_written / wav.sample_rate:.2f} s)\n")
    rows = [
        ["ready to listen", f"{ready_ms:.0f}"],
        *([name.replace("_", " "), f"{ms:.0f}"] for name, ms in done.timings.items()),
    ]
    console.table("where the time went", ["", "ms"], rows, [1])


if __name__ == "__main__":
    sys.exit(main())
