"""Reading a set of conversations with the replies they should get: a folder with `set.jsonl` and its files.

What a line may say is the runtime's `conversation_set.item`, since the runtime writes such lines when it captures.
"""

from __future__ import annotations

from pathlib import Path

from sottovoce.runtime.conversation_set.item import MAX_ITEMS, MAX_LINE_BYTES, SET_FILE, EvaluationItem, parse_item
from sottovoce.runtime.errors import InputError

__all__ = ["SET_FILE", "EvaluationItem", "read_evaluation_set"]


def read_evaluation_set(folder: Path) -> list[EvaluationItem]:
    """Read and check the whole set before anything is run.

    Raises:
        InputError: no set, an empty line, an unknown key or task, a file that is missing or outside the folder: with
            the line's number.
    """
    listing = folder / SET_FILE
    if not listing.is_file():
        fix = "give a folder made by `data --held-out` or by `run --capture`"
        raise InputError(f"there is no {SET_FILE} in this folder", file=folder, fix=fix)
    items: list[EvaluationItem] = []
    with listing.open("rb") as lines:
        while line := lines.readline(MAX_LINE_BYTES + 1):
            items.append(_read_line(line, f"{listing}:{len(items) + 1}", folder.resolve()))
            if len(items) > MAX_ITEMS:
                raise InputError(f"more than {MAX_ITEMS} lines", file=listing, fix="split the set")
    if not items:
        raise InputError("the set is empty", file=listing, fix="write at least one line")
    return items


def _read_line(line: bytes, where: str, folder: Path) -> EvaluationItem:
    item = parse_item(line, where)
    for path in item.files:
        _check_file(path, where, folder)
    return item


def _check_file(path: str, where: str, folder: Path) -> None:
    resolved = (folder / path).resolve()
    if not resolved.is_relative_to(folder):
        raise InputError(f"{path!r} leaves the folder of the set", file=where, fix="use paths inside it")
    if not resolved.is_file():
        raise InputError(f"{path!r} is missing", file=where, fix="put the file there, or make the set again")
