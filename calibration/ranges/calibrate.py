"""Run conversations through a bundle and write down what they do to its tensors."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.ranges.observed_graph import ObservedSession, observed_tensors, write_observed_graph
from sottovoce.calibration.ranges.range_file import FORMAT_VERSION, RangeRecord, graph_hash, write_ranges
from sottovoce.calibration.ranges.statistics import TensorStatistics
from sottovoce.calibration.replay import replay
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation_set.capture_record import read_capture_record
from sottovoce.runtime.conversation_set.item import SET_FILE, EvaluationItem
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.hashing import file_sha256
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.progress import Progress, SilentProgress

FEWEST_CONVERSATIONS = 32


def calibrate(
    bundle: Bundle, data: Path, output: Path, *, allow_little_data: bool = False, progress: Progress | None = None
) -> RangeRecord:
    """Hold every conversation of a set with the bundle, speech included, and write the range file.

    Args:
        bundle: a checked bundle, in floating point.
        data: a folder that `evaluate` reads: `set.jsonl` and its files.
        output: the range file.
        allow_little_data: take fewer than 32 conversations.
        progress: told of each conversation.

    Raises:
        InputError: too little data, a set that cannot be read, or captures of another model.
        NotFiniteError: a tensor that is NaN or infinite; names it.
    """
    items = read_evaluation_set(data)
    read_capture_record(data, bundle.manifest)  # another model's captures are refused
    if len(items) < FEWEST_CONVERSATIONS and not allow_little_data:
        raise InputError(
            f"{len(items)} conversations are too few to learn ranges from, expected at least {FEWEST_CONVERSATIONS}",
            file=data / SET_FILE,
            fix="collect more with `run --capture`, or take these all the same with --allow-little-data",
        )
    started = time.monotonic()
    statistics = observe(bundle, items, data, progress or SilentProgress(), output.absolute().parent)
    stages = dict.fromkeys(stage for stage, _ in statistics)
    record = RangeRecord(
        format_version=FORMAT_VERSION,
        tool=f"sottovoce {metadata.version('sottovoce')}",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        graphs={stage: graph_hash(bundle, stage) for stage in stages},
        data_sha256=data_hash(data, items),
        conversations=len(items),
        tasks=dict(Counter(item.task for item in items)),
        seconds=round(time.monotonic() - started, 1),
    )
    write_ranges(output, record, statistics)
    return record


def observe(
    bundle: Bundle, items: Sequence[EvaluationItem], folder: Path, progress: Progress, scratch: Path
) -> dict[tuple[StageName, str], TensorStatistics]:
    """Statistics of all watched tensors over conversations; stages that nothing used are missing.

    Args:
        scratch: a folder on a disk with room, best the bundle's own, where graphs lie meanwhile.
    """
    sessions: dict[StageName, ObservedSession] = {}
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".observed-", dir=scratch) as place:

        def open_stage(stage: StageName) -> ObservedSession:
            watched = observed_tensors(StageGraph(bundle, stage))
            spec = write_observed_graph(bundle, stage, watched, Path(place))
            sessions[stage] = ObservedSession(stage, spec, Path(place) / spec.file, watched)
            return sessions[stage]

        with Assistant(Model(bundle, open_stage=open_stage)) as assistant:
            for number, item in enumerate(items, start=1):
                replay(assistant, item, folder, speech=True)
                progress.step("calibrating", number, len(items))
    return {
        (stage, name): collector.statistics
        for stage, session in sessions.items()
        for name, collector in session.collectors.items()
        if collector.statistics is not None
    }


def data_hash(folder: Path, items: Sequence[EvaluationItem]) -> str:
    """SHA-256 over the listing and the hash of every file that it names, in order."""
    digest = hashlib.sha256((folder / SET_FILE).read_bytes())
    for item in items:
        for name in item.files:
            digest.update(bytes.fromhex(file_sha256(folder / name)))
    return digest.hexdigest()
