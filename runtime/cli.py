"""The command `sottovoce`: finds a subcommand, runs it, and turns every failure into one clear line.

Exit codes: 0 done, 1 it failed (what, where, how to fix it), 2 wrong usage. A traceback is shown with `--debug` only.
Subcommands of other rooms are imported when they are used, so that a device without PyTorch has the rest.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.interruption import Interruption


@dataclass(frozen=True)
class Place:
    """Where a subcommand lives (`module:attribute`), what it is for, and the extra that brings what it needs."""

    target: str
    summary: str
    extra: str | None = None


COMMANDS: dict[str, Place] = {
    "export": Place("sottovoce.export.commands:export_command", "Checkpoint in, bundle out.", "export"),
    "verify": Place("sottovoce.export.verify_command:verify_command", "A bundle against what it was made from."),
    "run": Place("sottovoce.runtime.commands.run:run_command", "One turn: a question in, text and speech out."),
    "say": Place("sottovoce.runtime.commands.say:say_command", "The speech decoder alone."),
    "chat": Place("sottovoce.runtime.commands.chat:chat_command", "A conversation, microphone to speaker.", "audio"),
    "replay": Place("sottovoce.runtime.commands.replay:replay_command", "A recorded conversation once more."),
    "build": Place("sottovoce.runtime.commands.build:build_command", "Engines for GPUs, from a bundle.", "rtx"),
    "inspect": Place("sottovoce.runtime.commands.inspect:inspect_command", "What is in a bundle."),
    "doctor": Place("sottovoce.runtime.commands.doctor:doctor_command", "What this machine has, and what it lacks."),
    "profile": Place("sottovoce.runtime.commands.profile:profile_command", "Where the time of a turn goes."),
    "evaluate": Place("sottovoce.calibration.commands:evaluate_command", "How many of a set's replies are right."),
    "calibrate": Place(
        "sottovoce.calibration.quantization.commands:calibrate_command", "What conversations do to tensors.", "quantize"
    ),
    "quantize": Place("sottovoce.calibration.quantization.commands:quantize_command", "A smaller bundle.", "quantize"),
}
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""The error that is the help itself; click 8.1, which will do as well, has no such error and shows the help."""


class CommandTable(click.Group):
    """A command group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of `cmd_name`; a missing extra is named."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module_name, _, attribute = place.target.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as missing:
            if place.extra is None or (missing.name or "").startswith("sottovoce"):
                raise
            raise SottovoceError(
                f"`sottovoce {cmd_name}` needs the Python package {missing.name!r}, which is not installed",
                fix=f"pip install 'sottovoce[{place.extra}]'",
            ) from missing
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sottovoce", prog_name="sottovoce")
def application() -> None:
    """Turn a trained VITA-1.5 checkpoint into a bundle of graphs, and talk through it.

    \b
    sottovoce export CHECKPOINT -o assistant.bundle
    sottovoce run assistant.bundle --audio question.wav -o reply.wav
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (`sys.exit` it)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug, as_json = "--debug" in given, "--json" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with Interruption():
            outcome = application.main(args=given, prog_name="sottovoce", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as problem:  # noqa: BLE001  # users never see a traceback
        if debug:
            traceback.print_exc()
        return _report(problem, as_json)
    return outcome if isinstance(outcome, int) else 0


def _report(problem: BaseException, as_json: bool) -> int:
    """Say what went wrong; returns the exit code."""
    match problem:
        case click.ClickException() if isinstance(problem, NO_ARGUMENTS):
            problem.show()
            return EXIT_USAGE
        case BrokenPipeError():
            # The reader went away (`| head`): not our failure, and nothing more can be said on that pipe.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_FAILED
        case click.ClickException():
            error, code = SottovoceError(problem.format_message()), EXIT_USAGE
        case KeyboardInterrupt() | click.Abort():
            error, code = SottovoceError("interrupted"), EXIT_INTERRUPTED
        case SottovoceError():
            error, code = problem, EXIT_FAILED
        case OSError():
            error, code = _operating_system_error(problem), EXIT_FAILED
        case _:
            message = f"unexpected {type(problem).__name__}: {problem}"
            error = SottovoceError(message, fix="run again with --debug and report what it shows")
            code = EXIT_FAILED
    _show(error, as_json, usage=_usage_of(problem))
    return code


def _usage_of(problem: BaseException) -> str | None:
    context = getattr(problem, "ctx", None)
    return context.get_usage() if context is not None else None


def _operating_system_error(problem: OSError) -> SottovoceError:
    fix = "free some space, or choose another place" if problem.errno == errno.ENOSPC else None
    return SottovoceError(problem.strerror or str(problem), file=problem.filename, fix=fix)


def _show(problem: SottovoceError, as_json: bool, usage: str | None = None) -> None:
    if as_json:
        print(json.dumps(problem.as_json(), ensure_ascii=False))
        return
    if usage:
        print(usage, file=sys.stderr)
    print(f"error: {problem}", file=sys.stderr)
