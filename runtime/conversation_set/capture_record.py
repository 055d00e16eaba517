"""`capture.json`: what a folder of captured conversations was captured with, so that no other model learns from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import BundleManifest
from sottovoce.runtime.records import read_record, write_record

CAPTURE_FILE = "capture.json"
CAPTURE_FORMAT_VERSION = 1
MAX_RECORD_BYTES = 64 << 10
ANOTHER_FOLDER = "choose another folder, or an empty one"


@dataclass(frozen=True)
class CaptureRecord:
    """The whole of `capture.json`.

    Args:
        format_version: of this record and of what it says about the folder.
        model_family: of the bundle that replied.
        bundle_sha256: of that bundle's `bundle.json`, which holds the hashes of all its files.
        audio_sample_rate: samples a second of every recording in the folder: what the model hears.
    """

    format_version: int
    model_family: str
    bundle_sha256: str
    audio_sample_rate: int

    @classmethod
    def of(cls, bundle: Bundle) -> CaptureRecord:
        """What captures of `bundle` say."""
        manifest = bundle.manifest
        rate = manifest.audio.sample_rate
        return cls(CAPTURE_FORMAT_VERSION, manifest.model_family, bundle.sha256, rate)

    def as_json(self) -> bytes:
        """The file's content."""
        return json.dumps(write_record(self), indent=1).encode() + b"\n"


def read_capture_record(folder: Path, manifest: BundleManifest) -> CaptureRecord | None:
    """What the conversations in `folder` were captured with, after making sure that a bundle may use them.

    For everything that reads captured conversations (`calibrate --data`) or adds to them (`run --capture`), before it
    computes anything. The folder may be another bundle's of the same model, as when captures of a full-precision
    bundle calibrate a smaller one: who needs the very same bundle compares `bundle_sha256`.

    Args:
        folder: holds `set.jsonl`; whether that is well-formed is not looked at here.
        manifest: of the bundle that is going to use the conversations.

    Returns:
        The record, or None if there is no `capture.json`: a set that was made by other means.

    Raises:
        InputError: another version of the format, another model family or sample rate, or not a record at all; with
            what was found, what was expected, and what to do.
        RecordError: an unknown key, a missing one, or a value of another type.
    """
    path = folder / CAPTURE_FILE
    if not path.is_file():
        return None
    record = _read(path)
    if record.model_family != manifest.model_family:
        message = f"captured with a model of the family {record.model_family!r}; this bundle's is"
        raise InputError(f"{message} {manifest.model_family!r}", file=path, fix=ANOTHER_FOLDER)
    found, expected = record.audio_sample_rate, manifest.audio.sample_rate
    if found != expected:
        message = f"captured at {found} samples a second; this bundle's model hears {expected}"
        raise InputError(message, file=path, fix=ANOTHER_FOLDER)
    return record


def _read(path: Path) -> CaptureRecord:
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise InputError(f"more than {MAX_RECORD_BYTES} bytes: not a capture record", file=path, fix=ANOTHER_FOLDER)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise InputError(f"not JSON in UTF-8: {problem}", file=path, fix=ANOTHER_FOLDER) from problem
    # Before the strict reading: another version may well have other keys, and that it is another version is the news.
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != CAPTURE_FORMAT_VERSION or isinstance(version, bool):
        message = f"format_version is {version!r}; this sottovoce reads version {CAPTURE_FORMAT_VERSION}"
        raise InputError(message, file=path, fix=f"{ANOTHER_FOLDER}; or use the sottovoce that wrote it")
    return read_record(CaptureRecord, data, source=str(path))
