"""`sottovoce run`: one turn, from text, a recording, pictures or a clip, to text and speech."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.commands.capturing import Capturing
from sottovoce.runtime.commands.options import (
    BUNDLE,
    DUMP,
    FILE,
    backend_choice,
    capturing,
    check_capturing,
    common,
    sampling,
)
from sottovoce.runtime.console import Console
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import WavWriter
from sottovoce.runtime.profile import peak_memory_mb
from sottovoce.runtime.reply import AudioChunk, ReplyDone, TextDelta
from sottovoce.runtime.tensor_dump import TensorDump

REASONS = {
    "length": "the reply was ended by its limit of tokens",
    "not_addressed": "the model took this for something not meant for it, and says nothing",
}


@dataclass(frozen=True)
class RunOptions:
    """What the flags say."""

    audio: Path | None
    images: tuple[Path, ...]
    video: Path | None
    text: str | None
    output: Path | None
    system: str | None
    speech: bool
    backend: str
    require_engine: bool
    threads: int | None
    dump_tensors: Path | None
    greedy: bool
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    seed: int | None
    max_new_tokens: int | None
    capture: Path | None
    capture_max: int | None


@click.command("run")
@BUNDLE
@click.option("--audio", type=FILE, metavar="F", help="A recorded question (WAV, FLAC, OGG).")
@click.option("--image", "images", type=FILE, multiple=True, metavar="F", help="A picture; may be given several times.")
@click.option("--video", type=FILE, metavar="F", help="A clip; one frame a second is looked at.")
@click.option("--text", metavar="S", help="A typed question, or words beside the recording.")
@click.option("-o", "--output", type=FILE, metavar="reply.wav", help="Write the spoken reply here.")
@click.option("--system", metavar="S", help="Who the assistant is; default: as the bundle says.")
@click.option("--speech/--no-speech", default=True, help="Compute the spoken reply (the default with -o).")
@click.option("--threads", type=click.IntRange(1), help="CPU cores to use; default: all this process may use.")
@backend_choice
@sampling
@DUMP
@capturing
@common
def run_command(bundle: Path, as_json: bool, debug: bool, **flags: Any) -> None:
    """Ask BUNDLE one question and get its answer."""
    del debug
    options = RunOptions(**flags)
    if options.output is not None and not options.speech:
        raise click.UsageError("--no-speech leaves nothing to write to -o; give one of the two")
    check_capturing(options.capture, options.capture_max)
    if not (options.text or options.audio or options.images or options.video):
        raise click.UsageError("nothing is asked: give --text, --audio, --image or --video")
    _Run(bundle, options, Console(as_json)).go()


class _Run:
    """One turn: opened, asked, shown, written."""

    def __init__(self, bundle: Path, options: RunOptions, console: Console) -> None:
        self._bundle, self._options, self._console = bundle, options, console
        self._dump = TensorDump() if options.dump_tensors else None
        self._capturing: Capturing | None = None
        self._seconds = 0.0

    def go(self) -> None:
        options, console = self._options, self._console
        with ExitStack() as stack:
            progress = stack.enter_context(console.progress())
            assistant = stack.enter_context(
                Assistant.open(
                    self._bundle,
                    options.backend,
                    threads=options.threads,
                    require_engine=options.require_engine,
                    progress=progress,
                )
            )
            # Opened before anything is computed: a folder that cannot be written shows at once.
            wav = stack.enter_context(WavWriter(options.output, assistant.sample_rate)) if options.output else None
            if options.capture is not None:
                self._capturing = Capturing(options.capture, options.capture_max, assistant.bundle, console)
            done = self._ask(assistant, wav)
        if self._dump is not None and options.dump_tensors is not None:
            self._dump.write(options.dump_tensors)
            console.say(f"tensors   {options.dump_tensors}")
        # Only now: if there is no room for the capture, the reply is there all the same.
        captured = None if self._capturing is None else self._capturing.add(done)
        self._show(done, captured)

    def _ask(self, assistant: Assistant, wav: WavWriter | None) -> ReplyDone:
        options = self._options
        conversation = assistant.conversation(
            options.system,
            greedy=options.greedy,
            seed=options.seed,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            repetition_penalty=options.repetition_penalty,
            max_new_tokens=options.max_new_tokens,
            speech=options.speech,
            dump=self._dump,
        )
        if self._capturing is not None:
            self._capturing.begin(conversation)
        for event in conversation.ask(options.text, options.audio, options.images, options.video):
            match event:
                case TextDelta(text):
                    self._console.say(text, end="")
                case AudioChunk(samples):
                    self._seconds += len(samples) / assistant.sample_rate
                    if wav is not None:
                        wav.append(samples)
                case ReplyDone() as done:
                    self._console.say()
                    return done
        raise InputError("the reply had no end")  # a reply's stream always ends with ReplyDone

    def _show(self, done: ReplyDone, captured: dict[str, Any] | None) -> None:
        console, options = self._console, self._options
        if done.reason in REASONS:
            console.warn(REASONS[done.reason])
        audio = {"path": str(options.output) if options.output else None, "seconds": round(self._seconds, 3)}
        if options.output:
            console.say(f"spoken    {options.output} ({self._seconds:.2f} s)")
        timings = {name: round(milliseconds, 2) for name, milliseconds in done.timings.items()}
        rows = [[name.replace("_", " "), f"{milliseconds:.0f}"] for name, milliseconds in timings.items()]
        console.table("", ["time", "ms"], rows, [1])
        memory = round(peak_memory_mb(), 1)
        console.say(f"peak memory {memory:.0f} MB", style="dim")
        console.result(
            {
                "text": done.text,
                "state": done.state,
                "tokens": list(done.tokens),
                "reason": done.reason,
                "audio": audio if options.speech else None,
                "timings_ms": timings,
                "peak_memory_mb": memory,
                "capture": captured,
            }
        )
