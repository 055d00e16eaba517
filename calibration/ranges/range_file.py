"""The file that `calibrate` writes and `quantize` reads: statistics of every watched tensor, and what they are of.

A zip of plain arrays (numpy's `.npz`, never pickles) with one JSON record in it. It is written beside its place and
renamed into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.calibration.ranges.statistics import BINS, TensorStatistics
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.hashing import file_sha256
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.records import read_record, write_record

FORMAT_VERSION = 1
RECORD = "record"
MAX_FILE_BYTES = 64 << 30
MAX_RECORD_BYTES = 64 << 20
AGAIN = "make it again: sottovoce calibrate BUNDLE --data DIR -o RANGES"


@dataclass(frozen=True)
class TensorRecord:
    """The scalars of one tensor's statistics; its arrays lie beside the record under the same number."""

    stage: StageName
    name: str
    lowest: float
    highest: float
    count: int
    limit: float
    channel_count: int


@dataclass(frozen=True)
class RangeRecord:
    """What the statistics are of.

    Args:
        graphs: each watched stage's graph, as the SHA-256 of its `.onnx` file and of its weights, joined.
        data_sha256: of the conversations and all their files.
        conversations: how many were run.
        tasks: how many of each kind.
        seconds: how long it took.
    """

    format_version: int
    tool: str
    created: str
    graphs: Mapping[str, str]
    data_sha256: str
    conversations: int
    tasks: Mapping[str, int]
    seconds: float
    tensors: tuple[TensorRecord, ...] = ()


@dataclass(frozen=True)
class Ranges:
    """A whole range file."""

    record: RangeRecord
    statistics: Mapping[tuple[StageName, str], TensorStatistics]
    sha256: str = ""
    path: Path = field(default_factory=Path)

    def of(self, stage: StageName, name: str) -> TensorStatistics:
        """Statistics of one tensor.

        Raises:
            SottovoceError: it was not watched, or nothing came by.
        """
        found = self.statistics.get((stage, name))
        if found is None:
            raise SottovoceError(
                f"there are no ranges of the tensor {name!r} of stage {stage!r}",
                file=self.path,
                fix="calibrate with data that uses this stage (pictures for the vision encoder, speech for the audio "
                "encoder), or leave the stage out of --precision",
            )
        return found

    def require_graphs(self, bundle: Bundle, stages: list[StageName]) -> None:
        """Refuse ranges of other graphs.

        Raises:
            SottovoceError: the hash of one of the stages differs, or the stage was not watched.
        """
        for stage in stages:
            found, expected = self.record.graphs.get(stage), graph_hash(bundle, stage)
            if found != expected:
                what = "has none of" if found is None else "was made with another graph of"
                raise SottovoceError(
                    f"this range file {what} stage {stage!r} (hash {found and found[:12]}, the bundle's graph has "
                    f"{expected[:12]})",
                    file=self.path,
                    fix=AGAIN,
                )


def graph_hash(bundle: Bundle, stage: StageName) -> str:
    """One hash for a stage's graph and weights, from the manifest's."""
    spec, files = bundle.graph(stage), bundle.manifest.files
    return hashlib.sha256("".join(files[name].sha256 for name in (spec.file, *spec.data)).encode()).hexdigest()


def write_ranges(path: Path, record: RangeRecord, statistics: Mapping[tuple[StageName, str], TensorStatistics]) -> None:
    """Write the file, whole or not at all; `record.tensors` is filled in here.

    Raises:
        OSError: the disk is full or not writable.
    """
    tensors: list[TensorRecord] = []
    arrays: dict[str, Any] = {}
    for number, ((stage, name), found) in enumerate(statistics.items()):
        scalars = (found.lowest, found.highest, found.count, found.limit, found.channel_count)
        tensors.append(TensorRecord(stage, name, *scalars))
        arrays[f"{number}.histogram"] = found.histogram
        arrays[f"{number}.peaks"] = found.channel_peaks
        arrays[f"{number}.squares"] = found.channel_squares
        arrays[f"{number}.rows"] = found.rows
    whole = write_record(record) | {"tensors": write_record(tuple(tensors))}
    arrays[RECORD] = np.frombuffer(json.dumps(whole, ensure_ascii=False).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_ranges(path: Path) -> Ranges:
    """Read and check a range file.

    Raises:
        SottovoceError: not such a file, of another version, damaged, or with arrays of the wrong sizes.
    """
    if not path.is_file():
        raise SottovoceError("there is no range file here", file=path, fix=AGAIN)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SottovoceError(f"a range file of more than {MAX_FILE_BYTES >> 30} GB", file=path, fix=AGAIN)
    try:
        with np.load(path, allow_pickle=False) as file:
            text = file[RECORD]
            if text.dtype != np.uint8 or text.size > MAX_RECORD_BYTES:
                raise ValueError("its record is not one")
            record = read_record(RangeRecord, json.loads(text.tobytes()), source=str(path))
            if record.format_version != FORMAT_VERSION:
                raise ValueError(f"format {record.format_version}, this version reads {FORMAT_VERSION}")
            statistics = {
                (tensor.stage, tensor.name): _statistics(tensor, [file[f"{n}.{part}"] for part in _PARTS])
                for n, tensor in enumerate(record.tensors)
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise SottovoceError(f"not a range file: {problem}", file=path, fix=AGAIN) from problem
    return Ranges(record, statistics, file_sha256(path), path)


_PARTS = ("histogram", "peaks", "squares", "rows")


def _statistics(tensor: TensorRecord, arrays: list[np.ndarray]) -> TensorStatistics:
    histogram, peaks, squares, rows = arrays
    fits = histogram.shape == (BINS,) and peaks.shape == squares.shape and peaks.ndim == 1
    if not fits or rows.ndim != 2 or (rows.size and rows.shape[1] != peaks.size):
        raise ValueError(f"arrays of {tensor.name!r} do not fit together")
    if not (np.isfinite(peaks).all() and np.isfinite(squares).all() and np.isfinite(rows).all()):
        raise ValueError(f"statistics of {tensor.name!r} are not finite")
    return TensorStatistics(
        tensor.lowest, tensor.highest, tensor.count, histogram.astype(np.int64), tensor.limit,
        peaks.astype(np.float32), squares.astype(np.float64), tensor.channel_count, rows.astype(np.float32),
    )  # fmt: skip
