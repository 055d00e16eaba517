"""Events and actions as one JSON object each, and back: a conversation that can be recorded and held again.

`{"event": "Played", "at": 3.2, "epoch": 1, "samples": 4800}`, `{"action": "Hear", "start": 0, "end": 512}`: the name of
the class, and its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from sottovoce.runtime.duplex.actions import Action
from sottovoce.runtime.duplex.events import Event
from sottovoce.runtime.records import RecordError, read_record, write_record

_EVENTS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Event)}
_ACTIONS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Action)}

Tagged = TypeVar("Tagged")


def write_event(event: Event) -> dict[str, Any]:
    """The JSON object of an event."""
    return {"event": type(event).__name__, **write_record(event)}


def write_action(action: Action) -> dict[str, Any]:
    """The JSON object of an action."""
    return {"action": type(action).__name__, **write_record(action)}


def read_event(data: object, *, source: str, path: str = "") -> Event:
    """The inverse of `write_event`.

    Args:
        data: parsed JSON.
        source: the file it comes from, for messages.
        path: where in that file.

    Raises:
        RecordError: not an event, an unknown or missing key, a value of another type or out of range.
    """
    event: Event = _read("event", _EVENTS, data, source, path)
    return event


def read_action(data: object, *, source: str, path: str = "") -> Action:
    """The inverse of `write_action`; arguments and errors are those of `read_event`."""
    action: Action = _read("action", _ACTIONS, data, source, path)
    return action


def _read(tag: str, kinds: Mapping[str, Any], data: object, source: str, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise RecordError(f"{path or 'the top level'} is {type(data).__name__}, expected an object", file=source)
    where = f"{path}.{tag}" if path else tag
    if tag not in data:
        raise RecordError(f"key {where!r} is missing", file=source, fix=f"add {where!r}")
    name = data[tag]
    if not isinstance(name, str) or name not in kinds:
        raise RecordError(f"{where} is {name!r}, expected one of {', '.join(kinds)}", file=source)
    fields = {key: value for key, value in data.items() if key != tag}
    try:
        return read_record(kinds[name], fields, source=source, path=path)
    except OverflowError as problem:
        message = f"{where}: a number of {name} is too large for a float"
        raise RecordError(message, file=source) from problem
    except RecordError as problem:
        if problem.file is not None:
            raise
        message = f"{path}: {problem.message}" if path else problem.message
        raise RecordError(message, file=source, fix=problem.fix) from problem
