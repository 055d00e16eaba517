"""A component's configuration file, read strictly: every key is read, listed as harmless, or refused by its path.

The layout's files come out of several trainers and mix what shapes the computation with what only trained it. A key
that nobody here knows might do the former, so it is refused, with a guess at the misspelling, until the user says
that it may be ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sottovoce.runtime.errors import CheckpointError
from sottovoce.runtime.records import RecordError, read_record

Section = TypeVar("Section")

MAX_BYTES = 8 << 20
"""Far above any real configuration file; a larger one is not a configuration file."""

MAX_YAML_ALIASES = 16
"""Enough for the repeated lists a dumper writes, too few for a document that unfolds without end."""


@dataclass(frozen=True)
class ConfigFile:
    """One configuration file and what the user allows to be ignored in it.

    Args:
        path: where it is; named in every error.
        ignored_keys: keys, bare or by their whole dotted path, that are dropped unread.
    """

    path: Path
    ignored_keys: frozenset[str] = frozenset()

    def read_json(self) -> Any:
        """The parsed JSON document.

        Raises:
            CheckpointError: missing, too large, not JSON, or a key given twice.
        """
        try:
            return json.loads(self._text(), object_pairs_hook=self._unique)
        except (json.JSONDecodeError, RecursionError) as problem:
            raise self.error(f"is not JSON: {problem}", fix="download or write the file again") from problem

    def read_yaml(self) -> Any:
        """The parsed YAML document, plain data only.

        Raises:
            CheckpointError: missing, too large, not YAML, or holding tags that would build objects.
        """
        try:
            return yaml.load(self._text(), Loader=_BoundedLoader)  # noqa: S506  # a SafeLoader with fewer rights
        except (yaml.YAMLError, RecursionError, ValueError) as problem:
            text = " ".join(str(problem).split())
            raise self.error(f"is not plain YAML: {text}", fix="keep only keys, numbers, texts and lists") from problem

    def section(self, kind: type[Section], data: object, *, path: str = "", accepted: Sequence[str] = ()) -> Section:
        """Build the dataclass `kind` from one object of the file.

        Dashes and underscores in keys are the same, as they are to the trainers' argument parsers.

        Args:
            kind: a dataclass with a field for every key that is read.
            data: the parsed object.
            path: where the object is in the file, for messages.
            accepted: patterns of keys that do not change what is computed.

        Raises:
            CheckpointError: unknown or missing keys, or a value of another type.
        """
        if not isinstance(data, Mapping):
            raise self.error(f"{path or 'the top level'} is {_brief(data)}, expected an object")
        fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # kind is a dataclass
        spellings: dict[str, str] = {}
        unknown: list[str] = []
        for key in map(str, data):
            name = key.replace("-", "_")
            if self._is_ignored(key, path):
                continue
            if name in fields:
                if name in spellings:
                    raise self.error(f"{_join(path, key)!r} is given twice, as {spellings[name]!r} too")
                spellings[name] = key
            elif not any(fnmatch.fnmatchcase(name, pattern) for pattern in accepted):
                unknown.append(key)
        if unknown:
            raise self._unknown_keys(unknown, path, fields)
        values = {name: data[key] for name, key in spellings.items()}
        try:
            return read_record(kind, values, source=str(self.path), path=path)
        except RecordError as problem:
            raise self.error(_respell(problem.message, spellings), fix=problem.fix) from problem

    def expect(self, key: str, found: object, *allowed: object, why: str = "") -> None:
        """Refuse a value that would change the computation in a way that is not built here.

        Raises:
            CheckpointError: `found` is none of `allowed` (values and types compared).
        """
        if any(found == choice and type(found) is type(choice) for choice in allowed):
            return
        expected = " or ".join(json.dumps(choice) for choice in allowed)
        reason = f" ({why})" if why else ""
        raise self.error(
            f"{key} is {_brief(found)}, expected {expected}{reason}",
            fix="export a checkpoint of the released VITA-1.5 architecture; this variant is not supported",
        )

    def within(self, key: str, value: float, least: float, most: float) -> None:
        """Refuse a size that no model has, before anything of that size is made.

        Raises:
            CheckpointError: the value is outside, or not a number.
        """
        if not least <= value <= most:
            raise self.error(f"{key} is {value!r}, expected {least} to {most}", fix=f"correct {key!r}")

    def agree(self, key: str, value: object, other: str, expected: object) -> None:
        """Refuse two keys that must say the same and do not.

        Raises:
            CheckpointError: they differ.
        """
        if value != expected:
            raise self.error(f"{key} is {value!r}, expected {expected!r} as {other} says", fix=f"correct {key!r}")

    def error(self, message: str, *, fix: str | None = None) -> CheckpointError:
        """An error about this file, to be raised."""
        return CheckpointError(message, file=self.path, fix=fix)

    def _text(self) -> str:
        try:
            size = self.path.stat().st_size
            if size > MAX_BYTES:
                raise self.error(f"has {size} bytes, expected a configuration file of at most {MAX_BYTES}")
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError as problem:
            raise self.error("is missing", fix="download the checkpoint again, with all its files") from problem
        except UnicodeDecodeError as problem:
            raise self.error(f"is not UTF-8 text: {problem}", fix="download the file again") from problem
        except OSError as problem:
            raise self.error(f"cannot be read: {problem.strerror or problem}") from problem

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise self.error(f"key {twice!r} is given twice", fix="keep one of them")
        return values

    def _is_ignored(self, key: str, path: str) -> bool:
        return key in self.ignored_keys or _join(path, key) in self.ignored_keys

    def _unknown_keys(self, unknown: Iterable[str], path: str, known: list[str]) -> CheckpointError:
        descriptions, flags = [], []
        for key in unknown:
            close = difflib.get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.75)
            spelled = (close[0].replace("_", "-") if "-" in key else close[0]) if close else ""
            guess = f" (did you mean {spelled!r}?)" if close else ""
            descriptions.append(f"{_join(path, key)!r}{guess}")
            flags.append(f"--ignore-config-key {_join(path, key)}")
        plural = "s" if len(descriptions) > 1 else ""
        return self.error(
            f"unknown key{plural} {', '.join(descriptions)}; expected keys of the released VITA-1.5",
            fix=f"correct the spelling, or, if it does not change what the model computes, pass {' '.join(flags)}",
        )


class _BoundedLoader(yaml.SafeLoader):
    """A SafeLoader that takes few aliases: the document's size in memory stays near its size on disk."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_YAML_ALIASES:
                raise yaml.YAMLError(f"more than {MAX_YAML_ALIASES} aliases")
        return super().compose_node(parent, index)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _respell(message: str, spellings: Mapping[str, str]) -> str:
    """Put the file's own spelling of a key back into a message about the field of that name."""
    for name, key in spellings.items():
        if name != key:
            message = message.replace(f".{name} ", f".{key} ")
    return message


def _brief(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
