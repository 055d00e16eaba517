"""`sottovoce say`: the speech decoder and the codec alone."""

from __future__ import annotations

from pathlib import Path

import click

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.commands.options import BUNDLE, DUMP, FILE, backend_choice, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.features.audio_file import WavWriter
from sottovoce.runtime.profile import peak_memory_mb
from sottovoce.runtime.reply import AudioChunk
from sottovoce.runtime.tensor_dump import TensorDump


@click.command("say")
@BUNDLE
@click.argument("text")
@click.option("-o", "--output", type=FILE, required=True, metavar="F", help="The WAV file to write.")
@click.option("--greedy", is_flag=True, help="Always the most likely code; otherwise one of the best few is drawn.")
@click.option("--seed", type=click.IntRange(0), help="The same seed, the same sound.")
@backend_choice
@DUMP
@common
def say_command(  # noqa: PLR0913  # click hands over one argument a flag
    bundle: Path,
    text: str,
    output: Path,
    greedy: bool,
    seed: int | None,
    backend: str,
    require_engine: bool,
    dump_tensors: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Speak TEXT with BUNDLE's voice."""
    del debug
    console = Console(as_json)
    dump = TensorDump() if dump_tensors else None
    timings: dict[str, float] = {}
    with (
        console.progress() as progress,
        Assistant.open(bundle, backend, require_engine=require_engine, progress=progress) as assistant,
    ):
        events = assistant.say(text, greedy=greedy, seed=seed, dump=dump)
        with WavWriter(output, assistant.sample_rate) as wav:
            for event in events:
                if isinstance(event, AudioChunk):
                    wav.append(event.samples)
                else:
                    timings = {name: round(value, 2) for name, value in event.timings.items()}
    if dump is not None and dump_tensors is not None:
        dump.write(dump_tensors)
        console.say(f"tensors   {dump_tensors}")
    seconds = wav.samples_written / wav.sample_rate
    factor = timings["total"] / 1000 / seconds if seconds else float("nan")
    console.say(f"spoken    {output} ({seconds:.2f} s, real-time factor {factor:.2f})")
    console.result(
        {
            "audio": {"path": str(output), "seconds": round(seconds, 3)},
            "timings_ms": timings,
            "peak_memory_mb": round(peak_memory_mb(), 1),
        }
    )
