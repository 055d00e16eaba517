"""Options that several commands share, so that the same word means the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
BUNDLE = click.argument("bundle", type=FILE)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on standard output, all else on standard error."
)
DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
DUMP = click.option("--dump-tensors", type=FILE, metavar="F.npz", help="Write the stages' tensors, for comparing.")

BACKEND = (
    click.option(
        "--backend", default="auto", show_default=True,
        help="Inference engine: auto, onnxruntime, tensorrt, cuda, ort-tensorrt or nv-tensorrt-rtx.",
    ),
    click.option(
        "--require-engine", is_flag=True, help="Fail where a TensorRT engine cannot be used; else ONNX Runtime is."
    ),
)  # fmt: skip

SAMPLING = (
    click.option("--greedy", is_flag=True, help="Always the most likely token."),
    click.option("--temperature", type=click.FloatRange(0.0, 10.0), help="Sharper below 1, wilder above; 0 is greedy."),
    click.option("--top-k", type=click.IntRange(1), help="Sample among the k most likely tokens."),
    click.option(
        "--top-p", type=click.FloatRange(0.0, 1.0, min_open=True), help="Sample among tokens of this much probability."
    ),
    click.option(
        "--repetition-penalty", type=click.FloatRange(0.1, 10.0), help="Above 1, used tokens become less likely."
    ),
    click.option("--seed", type=click.IntRange(0), help="The same seed, the same reply."),
    click.option("--max-new-tokens", type=click.IntRange(1), help="End the reply after so many tokens."),
)

MAX_CAPTURED = 100_000
"""The whole set is written again with every conversation: beyond this, that would be what a device is busy with."""
CAPTURING = (
    click.option(
        "--capture",
        type=FILE,
        metavar="DIR",
        help="Write the conversation, with what was said and shown, into DIR, for `evaluate` and calibration.",
    ),
    click.option(
        "--capture-max",
        type=click.IntRange(1, MAX_CAPTURED),
        metavar="N",
        help="Keep no more than N conversations in DIR (and 2 GB); default: 1000.",
    ),
)


def common(command: Command) -> Command:
    """Every command's `--json` and `--debug`."""
    return JSON(DEBUG(command))


def backend_choice(command: Command) -> Command:
    """What computes, and whether anything else may where that cannot."""
    return _with(BACKEND, command)


def sampling(command: Command) -> Command:
    """How the language model picks its tokens."""
    return _with(SAMPLING, command)


def capturing(command: Command) -> Command:
    """Whether the conversation is written down; it is not unless asked for."""
    return _with(CAPTURING, command)


def check_capturing(capture: Path | None, capture_max: int | None) -> None:
    """Refuse a bound on a capture that nobody asked for.

    Raises:
        click.UsageError: as said.
    """
    if capture_max is not None and capture is None:
        raise click.UsageError("--capture-max bounds what --capture DIR writes; give that, too")


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """The command with these options, the first of them first in its help."""
    for option in reversed(options):
        command = option(command)
    return command
