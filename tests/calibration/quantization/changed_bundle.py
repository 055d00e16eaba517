"""Bundles with some stages' graphs changed, written as quantization writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sottovoce.calibration.bundles.external_data import ExternalDataWriter
from sottovoce.calibration.bundles.graph_contract import check_graph
from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.stage_exports import StageExporter
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import STAGES, FileRecord, GraphSpec, Precision, StageName
from sottovoce.runtime.progress import SilentProgress

GraphPass = Callable[[StageGraph], None]
CONTEXT = 512


def change_stage(bundle: Bundle, stage: StageName, folder: Path, change: GraphPass) -> Bundle:
    """Write one changed graph below `folder`; returns the bundle with that graph in its place."""
    spec = bundle.graph(stage)
    (folder / "graphs").mkdir(exist_ok=True, parents=True)
    with ExternalDataWriter(folder / spec.data[0]) as data:
        graph = StageGraph(bundle, stage, data)
        change(graph)
        graph.save(folder / spec.file)
    return with_stage(bundle, stage, folder, replace(graph.spec, opset=graph.opset))


def with_stage(bundle: Bundle, stage: StageName, folder: Path, spec: GraphSpec) -> Bundle:
    """`bundle` in another folder, where this one stage's graph is (checked against its contract), and nothing else."""
    check_graph(folder, spec)
    files = {name: FileRecord((folder / name).stat().st_size, "") for name in (spec.file, *spec.data)}
    manifest = bundle.manifest
    graphs = {**manifest.graphs, stage: spec}
    return Bundle(folder, replace(manifest, graphs=graphs, files={**manifest.files, **files}))


def change_bundle(source: Path, folder: Path, changes: Mapping[StageName, GraphPass]) -> Path:
    """The whole bundle; the graphs of stages that are not named are copied."""
    bundle = Bundle.open(source)
    manifest = bundle.manifest
    with BundleWriter(folder, force=False) as writer:
        graphs = dict(manifest.graphs)
        for stage in STAGES:
            if stage in changes:
                graphs[stage] = change_stage(bundle, stage, writer.folder, changes[stage]).graph(stage)
            else:
                for name in (graphs[stage].file, *graphs[stage].data):
                    writer.copy(bundle.file(name), name)
        for name in (manifest.tokenizer, *manifest.token_embeddings.files, *manifest.code_embeddings.files):
            writer.copy(bundle.file(name), name)
        writer.seal(replace(manifest, graphs=graphs))
        writer.publish()
    return folder


def export_stage(
    checkpoint: Path, bundle: Bundle, folder: Path, stage: StageName, dialect: str, precision: Precision = "fp32"
) -> Bundle:
    """One stage of a checkpoint, decoders spelled in `dialect`, in the place of the bundle's own."""
    (folder / "graphs").mkdir(exist_ok=True, parents=True)
    exporter = StageExporter(Checkpoint.open(checkpoint), DIALECTS[dialect], CONTEXT, SilentProgress())
    return with_stage(bundle, stage, folder, exporter.export(StageFiles(stage, folder, precision)))
