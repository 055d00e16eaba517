"""Frozen dataclasses from untrusted JSON or YAML and back: keys known, types right, or an error with the path.

`read_record(BundleManifest, data, source="bundle.json")` rejects unknown keys by path and guesses the typo. Nothing is
coerced but int → float: a string where a number belongs is a mistake that would surface much later as wrong output.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sottovoce.runtime.errors import SottovoceError

Record = TypeVar("Record")


class RecordError(SottovoceError):
    """A key or value in a structured file is not what its format says."""


def read_record(kind: type[Record], data: object, *, source: str, path: str = "") -> Record:
    """Build the dataclass `kind` from parsed JSON/YAML `data`.

    Raises:
        RecordError: unknown or missing key, or a value of another type; the message holds the dotted path.
    """
    if not isinstance(data, Mapping):
        raise RecordError(f"{path or 'the top level'} is {_found(data)}, expected an object", file=source)
    hints: dict[str, Any] = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    for key in data:
        if key not in fields:
            raise RecordError(_unknown_key(path, str(key), list(fields)), file=source, fix="remove or correct that key")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        where = f"{path}.{name}" if path else name
        if name in data:
            values[name] = _read_value(hints[name], data[name], source, where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(f"key {where!r} is missing", file=source, fix=f"add {where!r}")
    return kind(**values)


def write_record(record: object, *, defaults: bool = True) -> Any:
    """The plain JSON value of a dataclass, tuples as lists (the inverse of `read_record`).

    Args:
        record: a dataclass, or a mapping, sequence or plain value that is in one.
        defaults: False leaves out fields whose value is their default.
    """
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        fields = [field for field in dataclasses.fields(record) if defaults or not _is_default(record, field)]
        return {field.name: write_record(getattr(record, field.name), defaults=defaults) for field in fields}
    if isinstance(record, Mapping):
        return {str(key): write_record(value, defaults=defaults) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [write_record(value, defaults=defaults) for value in record]
    return record


def _is_default(record: object, field: dataclasses.Field[Any]) -> bool:
    value = getattr(record, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read_value(hint: Any, value: object, source: str, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return read_record(typing.cast("type[Any]", hint), value, source=source, path=path)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _read_mapping(arguments[1], value, source, path)
    readers = {
        typing.Union: _read_union,
        types.UnionType: _read_union,
        typing.Literal: _read_choice,
        tuple: _read_tuple,
    }
    if origin in readers:
        return readers[origin](arguments, value, source, path)
    return _read_scalar(hint, value, source, path)


def _read_choice(choices: tuple[Any, ...], value: object, source: str, path: str) -> Any:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    raise RecordError(f"{path} is {value!r}, expected one of {', '.join(map(repr, choices))}", file=source)


def _read_mapping(hint: Any, value: object, source: str, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RecordError(f"{path} is {_found(value)}, expected an object", file=source)
    return {str(key): _read_value(hint, item, source, f"{path}.{key}") for key, item in value.items()}


def _read_union(choices: tuple[Any, ...], value: object, source: str, path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    problems: list[RecordError] = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _read_value(choice, value, source, path)
        except RecordError as problem:
            problems.append(problem)
    raise problems[-1]


def _read_tuple(arguments: tuple[Any, ...], value: object, source: str, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise RecordError(f"{path} is {_found(value)}, expected a list", file=source)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read_value(arguments[0], item, source, f"{path}[{i}]") for i, item in enumerate(value))
    if len(arguments) != len(value):
        raise RecordError(f"{path} has {len(value)} entries, expected {len(arguments)}", file=source)
    pairs = enumerate(zip(arguments, value, strict=True))
    return tuple(_read_value(hint, item, source, f"{path}[{i}]") for i, (hint, item) in pairs)


_READERS = {typing.Union: _read_union, types.UnionType: _read_union, typing.Literal: _read_choice, tuple: _read_tuple}


def _read_scalar(hint: Any, value: object, source: str, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise RecordError(f"{path} is {_found(value)}, expected {hint.__name__}", file=source)


def _found(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _unknown_key(path: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown key {(path + '.' + key) if path else key!r}{guess} (known here: {', '.join(sorted(known))})"
