"""The command line: `python -m sottovoce.demos.miniature questions | data | train | evaluate | listen | pack`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sottovoce.demos.miniature.curriculum import questions
from sottovoce.demos.miniature.settings import PARTS, WORKSPACE_VARIABLE, Workspace, default_workspace
from sottovoce.runtime.console import Console
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.interruption import Interruption
from sottovoce.runtime.steady_memory import keep_freed_memory

FOLDER = click.Path(path_type=Path, file_okay=False)
FIGURES = click.Path(path_type=Path, dir_okay=False)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")
WORK = click.option(
    "--work", type=FOLDER, default=None, metavar="DIR",
    help=f"Data and training states [default: ${WORKSPACE_VARIABLE}, or a folder of the user's cache].",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def application() -> None:
    """Make, train, examine and pack the miniature: a small VITA-1.5 for a closed curriculum."""


@application.command("questions")
@AS_JSON
def questions_command(as_json: bool) -> None:
    """Every question of the curriculum with its reply."""
    if as_json:
        listed = [
            {"question": one.question, "reply": one.reply, "task": one.task, "held_out": one.held_out}
            for one in questions()
        ]
        sys.stdout.write(json.dumps(listed, ensure_ascii=False) + "\n")
        return
    for one in questions():
        print(f"{one.task:12} {'held out' if one.held_out else '':8}  {one.question}  →  {one.reply}")


@application.command("data")
@WORK
@AS_JSON
@click.option("--held-out", type=FOLDER, metavar="DIR", help="Write a set nobody was trained on, for `evaluate`.")
@click.option("--calibration", type=FOLDER, metavar="DIR", help="Write a set of training voices, for calibration.")
@click.option("--items", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Items of each task.")
@click.option("--seed", type=int, default=2026, show_default=True)
def data_command(  # noqa: PLR0913  # one argument an option
    work: Path | None, as_json: bool, held_out: Path | None, calibration: Path | None, items: int, seed: int
) -> None:
    """Tokenizer and speech for training; or, with an option, a set of conversations in a folder."""
    console = Console(as_json)
    if held_out is None and calibration is None:
        _make_training_data(_workspace(work), console)
        return
    from sottovoce.demos.miniature.sets import CALIBRATION_TASKS, TASKS, SetWriter

    made: dict[str, object] = {}
    for name, folder, tasks in (("held_out", held_out, TASKS), ("calibration", calibration, CALIBRATION_TASKS)):
        if folder is None:
            continue
        with console.progress() as progress:
            writer = SetWriter(folder, seed, training=name == "calibration")
            for done, _task in enumerate(writer.write(tasks, items), start=1):
                progress.step(f"{name} set", done, len(tasks) * items)
        made[name] = {"folder": str(folder), "items": len(tasks) * items}
        console.say(f"{len(tasks) * items} items in {folder}")
    console.result(made)


def _make_training_data(workspace: Workspace, console: Console) -> None:
    from sottovoce.demos.miniature.speech_in import make_speech
    from sottovoce.demos.miniature.stages import SPEECH_SEED, SPEECH_SHARDS
    from sottovoce.demos.miniature.tokenizer import prepare

    vocabulary = prepare(workspace).get_vocab_size()
    with console.progress() as progress:
        for number in make_speech(workspace.speech, SPEECH_SHARDS, SPEECH_SEED):
            progress.step("speech", number + 1, SPEECH_SHARDS)
    console.say(f"{SPEECH_SHARDS} shards of speech in {workspace.speech}, a tokenizer of {vocabulary} pieces")
    console.result({"shards": SPEECH_SHARDS, "vocabulary": vocabulary, "folder": str(workspace.root)})


@application.command("train")
@WORK
@click.option("--stage", type=click.IntRange(1, 3), required=True, help="1 vision–language, 2 audio in, 3 audio out.")
@click.option("--part", type=click.Choice([part for stage in PARTS.values() for part in stage]),
              help="One part of it [default: all].")  # fmt: skip
@click.option("--start-from", type=FOLDER, metavar="CHECKPOINT", help="Begin with the weights of a packed checkpoint.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True)
def train_command(work: Path | None, stage: int, part: str | None, start_from: Path | None, threads: int) -> None:
    """Train a stage, or go on where it was stopped."""
    if part is not None and part not in PARTS[stage]:
        raise click.UsageError(f"stage {stage} has no part {part!r}")
    import torch

    torch.set_num_threads(threads)
    keep_freed_memory()
    workspace = _workspace(work)
    packed = None
    if start_from is not None:
        from sottovoce.demos.miniature.warm_start import PackedWeights

        packed = PackedWeights(start_from)
        packed.bring_tokenizer(workspace)
    with Console().progress() as progress:
        if stage == 3:
            from sottovoce.demos.miniature.speech_out.stage import train_speech_out

            train_speech_out(workspace, parts=PARTS[stage] if part is None else (part,), packed=packed)
            return
        from sottovoce.demos.miniature import stages

        for name in PARTS[stage]:
            if part in (None, name):
                getattr(stages, f"train_{name}")(workspace, progress, packed)


@application.command("evaluate")
@WORK
@AS_JSON
@click.option("--set", "folder", type=FOLDER, required=True, metavar="DIR", help="A set made by `data --held-out`.")
def evaluate_command(work: Path | None, as_json: bool, folder: Path) -> None:
    """The newest training states on a set, in PyTorch (a bundle is examined by `sottovoce evaluate`)."""
    import torch

    from sottovoce.calibration.scores import table_rows
    from sottovoce.demos.miniature.evaluation import examine

    torch.set_num_threads(1)
    console = Console(as_json)
    with console.progress() as progress:
        scores = examine(_workspace(work), folder, lambda done, total: progress.step("items", done, total))
    columns = ("task", "measure", "items", "result", "95 %")
    console.table("", columns, table_rows(scores.tasks), right=(2, 3))
    console.say(f"questions taken for talk meant for others: {100 * scores.questions_ignored:.1f} %")
    console.result(scores.as_json())


@application.command("listen")
@WORK
@AS_JSON
@click.option("--bundle", type=FOLDER, metavar="BUNDLE", help="Listen to a bundle [default: the training states].")
@click.option("--sentences", type=click.IntRange(2, 375), default=80, show_default=True)
@click.option("--sounds", type=FOLDER, metavar="DIR", help="Write what was heard here, as WAV files.")
def listen_command(work: Path | None, as_json: bool, bundle: Path | None, sentences: int, sounds: Path | None) -> None:
    """An independent listener on sentences kept out of training: word errors of voice, codec and speech decoder."""
    import torch

    from sottovoce.demos.miniature.speech_out.measuring import measure_speech_out
    from sottovoce.demos.miniature.speech_out.sound_sources import ExportedBundle, TrainingStates

    torch.set_num_threads(1)
    console, workspace = Console(as_json), _workspace(work)
    with console.progress() as progress, contextlib.ExitStack() as stack:
        source = TrainingStates(workspace) if bundle is None else stack.enter_context(ExportedBundle(bundle))
        measures = measure_speech_out(
            workspace, source, sentences, sounds, lambda done, total: progress.step("listening", done, total)
        )
    for item in (measures.decoder or measures.codec).utterances:
        if item.errors:
            console.say(f"{item.errors} of {item.words}: {item.meant!r} heard as {item.heard!r}")
    rows = [[name, f"{100 * rate:.1f} %", f"{100 * difference:+.1f}"] for name, rate, difference in measures.rows()]
    console.table("", ["sound", "word error rate", "minus the voice's"], rows, right=(1, 2))
    console.result(measures.as_json())


@application.command("pack")
@WORK
@AS_JSON
@click.option("-o", "--output", type=FOLDER, help="The checkpoint's folder [default: in the work folder].")
@click.option("--untrained-speech", is_flag=True, help="Random weights for what stage 3 has not trained yet.")
@click.option("--scores", type=FIGURES, help="`sottovoce evaluate --json` of its bundle, for the card.")
@click.option("--stage-one", type=FIGURES, help="The same after stage 1.")
@click.option("--listening", type=FIGURES, help="`listen --json` of its bundle.")
def pack_command(  # noqa: PLR0913  # one argument an option
    work: Path | None,
    as_json: bool,
    output: Path | None,
    untrained_speech: bool,
    scores: Path | None,
    stage_one: Path | None,
    listening: Path | None,
) -> None:
    """The newest states as a checkpoint in the released layout, checked by the exporter's reader."""
    from sottovoce.demos.miniature.card import Measurements
    from sottovoce.demos.miniature.pack import pack

    workspace, console = _workspace(work), Console(as_json)
    target = output or workspace.checkpoint
    size = pack(workspace, target, untrained_speech, Measurements(scores, stage_one, listening))
    console.say(f"{target}: {size / 1e6:.1f} MB")
    console.result({"checkpoint": str(target), "bytes": size})


def _workspace(work: Path | None) -> Workspace:
    return Workspace(work) if work is not None else default_workspace()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 it failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with Interruption():
            application.main(args=given, prog_name="python -m sottovoce.demos.miniature", standalone_mode=False)
    except SottovoceError as problem:
        if "--json" in given:
            print(json.dumps(problem.as_json(), ensure_ascii=False))
        print(problem, file=sys.stderr)
        return 1
    except click.ClickException as problem:
        problem.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        print("interrupted: the same command goes on from the last saved state", file=sys.stderr)
        return 130
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 1
    return 0
