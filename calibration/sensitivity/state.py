"""A search's measurements on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

from sottovoce.calibration.sensitivity.report import FrontierPoint, LayerSensitivity
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.records import read_record, write_record

FORMAT_VERSION = 1
MAX_STATE_BYTES = 64 << 20


@dataclass(frozen=True)
class SearchKey:
    """What the measurements are of: another value of any of these, and they say nothing.

    The budget's limit is not among them: a search may go on with another one.
    """

    tool: str
    source_sha256: str
    ranges_sha256: str | None
    data_sha256: str
    plan: str
    measure: str


@dataclass(frozen=True)
class SearchState:
    """The whole file."""

    format_version: int
    key: SearchKey
    layers: tuple[LayerSensitivity, ...] = ()
    points: tuple[FrontierPoint, ...] = ()


class SearchFile:
    """The state of the search for one output, beside it.

    Args:
        output: the bundle that is to be written.
        key: of the search that begins, or goes on.

    Raises:
        SottovoceError: the file there is of another search, or damaged.
    """

    def __init__(self, output: Path, key: SearchKey) -> None:
        self.path = output.parent / f".{output.name}.search.json"
        self.state = self._read(key) if self.path.is_file() else SearchState(FORMAT_VERSION, key)

    def add_layer(self, layer: LayerSensitivity) -> None:
        """Remember a layer's sensitivity."""
        self._write(replace(self.state, layers=(*self.state.layers, layer)))

    def add_point(self, point: FrontierPoint) -> None:
        """Remember a bundle that was tried."""
        self._write(replace(self.state, points=(*self.state.points, point)))

    def remove(self) -> None:
        """The search is done."""
        self.path.unlink(missing_ok=True)

    def _write(self, state: SearchState) -> None:
        partial = self.path.with_name(f"{self.path.name}.partial-{os.getpid()}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(write_record(state), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)
        self.state = state

    def _read(self, key: SearchKey) -> SearchState:
        fix = "remove that file to start over, or choose another output with -o"
        try:
            if self.path.stat().st_size > MAX_STATE_BYTES:
                raise ValueError(f"more than {MAX_STATE_BYTES >> 20} MB")
            state = read_record(SearchState, json.loads(self.path.read_text(encoding="utf-8")), source=str(self.path))
        except (ValueError, RecursionError) as problem:
            raise SottovoceError(f"not the state of a search: {problem}", file=self.path, fix=fix) from problem
        except SottovoceError as problem:
            message = f"not the state of a search: {problem.message}"
            raise SottovoceError(message, file=self.path, fix=fix) from problem
        if state.format_version != FORMAT_VERSION:
            message = f"format_version is {state.format_version}, this version reads {FORMAT_VERSION}"
            raise SottovoceError(message, file=self.path, fix=fix)
        others = [field.name for field in fields(key) if getattr(state.key, field.name) != getattr(key, field.name)]
        if others:
            what = "; ".join(f"{name} {_short(state.key, name)}, here {_short(key, name)}" for name in others)
            message = f"an unfinished search of another kind was here: {what}"
            raise SottovoceError(message, file=self.path, fix=fix)
        return state


def _short(key: SearchKey, name: str) -> str:
    value = str(getattr(key, name))
    return value[:12] if name.endswith("sha256") else value
