"""The miniature's stages by other libraries' quantizers and by sottovoce, on the same conversations.

    python tests/benchmarks/quantization_peers.py BUNDLE --ranges RANGES --calibration DIR --held-out DIR
        [--peer-python PYTHON] [--stages audio_encoder …] [--quick] [--json]

All calibrate on the same set and are judged by the same answers; only the named stage is quantized. Each library is
asked for what it recommends for such weights. ONNX Runtime runs here; Optimum, NVIDIA ModelOpt and AutoRound by
--peer-python, a Python with what `quantizers/peer_tools.py` says. A library that fails on a graph is a row that says
how. Exit code 1 when ours loses more points than one of them; the replies that stay the same are shown beside it, since
points are won and lost by chance where a handful of replies differ.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from smollm2.onnxruntime_peers import PEERS

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quality import QualityCost, measure_cost
from sottovoce.calibration.quantization.quantize import QuantizeJob, quantize
from sottovoce.calibration.ranges.range_file import read_ranges
from sottovoce.calibration.replay import replay
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.session import Array, CacheBuffers, Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.manifest import QuantizationSpec, StageName, StagePrecision
from sottovoce.runtime.model import Model
from sottovoce.runtime.progress import Progress

MOST_CALLS = 200
PEER_TOOLS = Path(__file__).parent / "quantizers" / "peer_tools.py"


@dataclass(frozen=True)
class Contest:
    """One stage in one of our precisions, and who else does it: names of ONNX Runtime's and of the peers' tools."""

    stage: StageName
    precision: StagePrecision
    onnxruntime: tuple[str, ...]
    tools: tuple[str, ...]


CONTESTS = (
    *(
        Contest(stage, "int8", ("int8 quantize_static",), ("optimum-int8", "modelopt-int8"))
        for stage in ("audio_encoder", "vision_encoder")
    ),
    Contest("language_model", "int8", ("int8 quantize_static, products", "int8 quantize_dynamic"), ("modelopt-int8",)),
    Contest(
        "language_model", "int4-weights",
        ("int4:32 MatMulNBits", "int4:32 MatMulNBits symmetric"),
        ("modelopt-int4-awq", "modelopt-int4-rtn", "auto-round-int4"),
    ),
)  # fmt: skip


class RecordingSession(OnnxRuntimeSession):
    """Keeps what it was fed: whole calls, and of a decoder those with several positions, with its cache."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.fed: list[dict[str, Array]] = []

    def run(self, feeds: Mapping[str, Array], outputs: Any = None) -> dict[str, Array]:
        if len(self.fed) < MOST_CALLS:
            self.fed.append(dict(feeds))
        return super().run(feeds, outputs)

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        if len(self.fed) < MOST_CALLS and max(values.shape[1] for values in feeds.values() if values.ndim > 1) > 1:
            past = {f"past_{name}": values for name, values in cache.read(cache.capacity).items()}
            names = {tensor.role: tensor.name for tensor in self.spec.inputs}
            self.fed.append({**feeds, **{names[role]: values for role, values in past.items()}})
        return super().run_with_cache(feeds, cache)


@dataclass(frozen=True)
class Peers:
    """The source, what its stages were fed, and where peers write."""

    bundle: Bundle
    fed: Mapping[str, list[dict[str, Array]]]
    held_out: Path
    work: Path
    python: str | None

    def in_process(self, stage: StageName, name: str, precision: StagePrecision, progress: Progress) -> QualityCost:
        """By one of ONNX Runtime's quantizers."""
        whole, small = self._graphs(stage)
        PEERS[name](whole, list(self.fed[stage]), small)
        return self._judge(stage, precision, small, progress)

    def by_tool(self, stage: StageName, tool: str, precision: StagePrecision, progress: Progress) -> QualityCost:
        """By a tool of the other Python.

        Raises:
            RuntimeError: it failed; its last line.
        """
        assert self.python is not None
        whole, small = self._graphs(stage)
        feeds = self.work / "feeds"
        shutil.rmtree(feeds, ignore_errors=True)
        feeds.mkdir()
        for number, values in enumerate(self.fed[stage]):
            np.savez(feeds / f"{number:05}.npz", **values)
        command = [self.python, str(PEER_TOOLS), tool, str(whole), str(feeds), str(small)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode or not small.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it wrote nothing"]
            raise RuntimeError(lines[-1].strip())
        return self._judge(stage, precision, small, progress)

    def _graphs(self, stage: StageName) -> tuple[Path, Path]:
        """A copy of the stage's graph with its weights inside, and where the smaller one goes."""
        folder = self.work / "graphs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        onnx.save(onnx.load(str(self.bundle.file(self.bundle.graph(stage).file))), str(folder / "whole.onnx"))
        return folder / "whole.onnx", folder / "small.onnx"

    def _judge(self, stage: StageName, precision: StagePrecision, small: Path, progress: Progress) -> QualityCost:
        """Answers of the source with that stage replaced."""
        spec = self.bundle.graph(stage)
        model = onnx.load(str(small))  # with what lies beside it
        output = self.work / "peer.bundle"
        with BundleWriter(output, force=True) as writer:
            for name in self.bundle.manifest.files:
                if name not in (spec.file, *spec.data):
                    writer.copy(self.bundle.file(name), name)
            onnx.save(model, str(writer.folder / spec.file))
            size = (writer.folder / spec.file).stat().st_size
            graph = replace(
                spec, data=(), precision=precision, quantization=QuantizationSpec("fp32", "peer", None, 1, size, 1.0)
            )
            writer.seal(replace(self.bundle.manifest, graphs={**self.bundle.manifest.graphs, stage: graph}, files={}))
            writer.publish()
        return measure_cost(self.bundle.path, output, self.held_out, progress)


def record(bundle: Bundle, data: Path, stages: set[StageName], most: int | None, progress: Progress) -> dict[str, Any]:
    """What stages are fed in the conversations of a set."""
    sessions: dict[str, RecordingSession] = {}

    def open_stage(stage: StageName) -> Session:
        if stage not in stages:
            return open_session(bundle, stage)
        spec = bundle.graph(stage)
        sessions[stage] = RecordingSession(stage, spec, bundle.file(spec.file))
        return sessions[stage]

    items = read_evaluation_set(data)
    items = items[:: max(1, len(items) // most)] if most else items
    with Assistant(Model(bundle, open_stage=open_stage)) as assistant:
        for number, item in enumerate(items, 1):
            replay(assistant, item, data, speech=False)
            progress.step("recording", number, len(items))
    return {stage: session.fed for stage, session in sessions.items()}


@dataclass
class Row:
    """One library's stage: its cost, or how it failed."""

    contest: Contest
    by: str
    cost: QualityCost | None = None
    failure: str = ""

    def cells(self) -> list[str]:
        name = [self.contest.stage, self.contest.precision, self.by]
        if self.cost is None:
            return [*name, "", "", "", "", self.failure[:100]]
        before, after = (f"{100 * scores.reply_exact:.1f} %" for scores in (self.cost.before, self.cost.after))
        same = f"{100 * self.cost.same_replies:.1f} %"
        return [*name, before, after, f"{self.cost.points_lost:+.2f}", same, ""]


def hold(contest: Contest, peers: Peers, job: QuantizeJob, progress: Progress) -> list[Row]:
    """Ours, then all others; what fails says how."""
    ours = quantize(job, BundleWriter(peers.work / "ours.bundle", force=True), progress).cost
    rows = [Row(contest, "sottovoce", ours)]
    attempts = [(f"onnxruntime {name}", peers.in_process, name) for name in contest.onnxruntime]
    attempts += [(tool, peers.by_tool, tool) for tool in contest.tools if peers.python is not None]
    for by, attempt, name in attempts:
        try:
            rows.append(Row(contest, by, attempt(contest.stage, name, contest.precision, progress)))
        except Exception as problem:  # noqa: BLE001  # how a peer fails is its row
            rows.append(Row(contest, by, failure=f"{type(problem).__name__}: {' '.join(str(problem).split())}"))
    return rows


def main() -> int:
    """Print the table; 1 when ours is worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--ranges", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/quantization"))
    parser.add_argument("--peer-python", help="a Python with optimum-onnx, nvidia-modelopt and auto-round")
    parser.add_argument("--stages", nargs="*", default=list(dict.fromkeys(contest.stage for contest in CONTESTS)))
    parser.add_argument("--quick", action="store_true", help="record 32 conversations only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console, source = Console(options.json), Bundle.open(options.bundle)
    contests = [contest for contest in CONTESTS if contest.stage in options.stages]
    rows: list[Row] = []
    with console.progress() as progress:
        stages = {contest.stage for contest in contests}
        fed = record(source, options.calibration, stages, 32 if options.quick else None, progress)
        peers = Peers(source, fed, options.held_out, options.work, options.peer_python)
        for contest in contests:
            plan = parse_plan(f"{contest.stage}={contest.precision}")
            rows += hold(
                contest, peers, QuantizeJob(source, plan, read_ranges(options.ranges), options.held_out), progress
            )
    columns = ["stage", "precision", "by", "exact before", "after", "points lost", "same replies", ""]
    console.table("", columns, [row.cells() for row in rows], [3, 4, 5, 6])
    ours = {row.contest: row.cost for row in rows if row.by == "sottovoce" and row.cost is not None}
    worse = [
        row for row in rows if row.cost is not None and row.cost.points_lost < ours[row.contest].points_lost - 1e-9
    ]
    for row in worse:
        console.say(f"worse than {row.by}: {row.contest.stage} {row.contest.precision}")
    console.result(
        {"rows": [dict(zip((*columns[:-1], "failure"), row.cells(), strict=True)) for row in rows], "worse": len(worse)}
    )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
