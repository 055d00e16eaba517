"""`sottovoce inspect`: what is in a bundle, for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.commands.options import BUNDLE, backend_choice, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.engines.record import fingerprint_digest, graph_sha256, read_engines
from sottovoce.runtime.engines.targets import TARGETS
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import STAGES, BundleManifest, GraphSpec, TensorSpec
from sottovoce.runtime.records import write_record


@click.command("inspect")
@BUNDLE
@backend_choice
@common
def inspect_command(bundle: Path, backend: str, require_engine: bool, as_json: bool, debug: bool) -> None:
    """Show what BUNDLE holds: graphs and their tensors, caches, settings, where it came from."""
    del debug
    console = Console(as_json)
    with (
        console.progress() as progress,
        Assistant.open(bundle, backend, require_engine=require_engine, progress=progress) as assistant,
    ):
        manifest = assistant.bundle.manifest
        widened = assistant.widened_stages()
    _show_graphs(console, manifest, widened)
    _show_tensors(console, manifest)
    _show_settings(console, manifest)
    engines = list(_engines(console, assistant.bundle))
    _show_engines(console, engines)
    value: dict[str, Any] = write_record(manifest)
    value["engines"] = engines
    value["runs_as"] = {stage: _runs_as(manifest.graphs[stage], widened[stage]) for stage in STAGES}
    console.result(value)


def _runs_as(spec: GraphSpec, widened: bool) -> str:
    return "fp32" if widened else spec.precision


def _show_graphs(console: Console, manifest: BundleManifest, widened: dict[Any, bool]) -> None:
    rows = []
    for stage in STAGES:
        spec = manifest.graphs[stage]
        size = sum(manifest.files[name].bytes for name in (spec.file, *spec.data))
        here = f"{_runs_as(spec, widened[stage])} (widened: no fp16 kernels here)" if widened[stage] else spec.precision
        rows.append([stage, f"{spec.dialect}, opset {spec.opset}", spec.precision, here, f"{size / 1e6:.1f} MB"])
    console.table("graphs", ["stage", "dialect", "stored", "runs as", "size"], rows, [4])


def _show_tensors(console: Console, manifest: BundleManifest) -> None:
    rows = []
    for stage in STAGES:
        spec = manifest.graphs[stage]
        for direction, tensors in (("in", spec.inputs), ("out", spec.outputs)):
            rows += [[stage, direction, *_cells(t)] for t in tensors if not t.role.startswith(("past_", "present_"))]
        if spec.cache:
            cache = spec.cache
            shape = f"{cache.layers} layers × 2 × (1, {cache.kv_heads}, capacity, {cache.head_size})"
            rows.append([stage, "cache", f"up to {cache.max_length} positions", cache.dtype, shape])
    console.table("\ntensors", ["stage", "", "name", "type", "shape"], rows)


def _cells(tensor: TensorSpec) -> list[str]:
    return [tensor.name, tensor.dtype, f"({', '.join(map(str, tensor.shape))})"]


def _engines(console: Console, bundle: Bundle) -> Iterator[dict[str, Any]]:
    """What was built from the bundle, by the records that lie in it: the libraries are not needed."""
    for target in TARGETS:
        try:
            engines = read_engines(bundle, target).engines
        except BundleError as problem:
            console.warn(str(problem))
            continue
        for stage, record in engines.items():
            built = record.fingerprint
            yield {
                "stage": stage,
                "target": target,
                "bytes": record.bytes,
                "fingerprint": fingerprint_digest(built),
                "library": f"{built.library} {built.library_version}",
                "compute_capability": built.compute_capability,
                "platform": built.platform,
                "created": record.created,
                "graph_unchanged": built.graph_sha256 == graph_sha256(bundle, record.stage),
            }


def _show_engines(console: Console, engines: list[dict[str, Any]]) -> None:
    rows = [
        [
            engine["target"],
            engine["stage"],
            engine["fingerprint"],
            engine["library"],
            f"{engine['compute_capability']}, {engine['platform']}",
            f"{engine['bytes'] / 1e6:.1f} MB",
            "" if engine["graph_unchanged"] else "of another graph: build it again",
        ]
        for engine in engines
    ]
    if rows:
        columns = ["target", "stage", "fingerprint", "built with", "for", "size", ""]
        console.table("\nengines", columns, rows, [5])


def _show_settings(console: Console, manifest: BundleManifest) -> None:
    audio, image, speech, generation = manifest.audio, manifest.image, manifest.speech, manifest.generation
    origin = manifest.provenance
    rows = [
        ["hears", f"{audio.sample_rate} Hz, {audio.mel_bins} mel bins, up to {audio.max_seconds:.0f} s a turn"],
        ["sees", f"{image.image_size}² tiles, up to {image.max_tiles}, {image.tokens_per_tile} tokens each"],
        ["speaks", f"{speech.sample_rate} Hz, {speech.sample_rate / speech.samples_per_code:g} codes a second"],
        ["context", f"{generation.context_length} tokens; stops at {', '.join(map(str, generation.stop_ids))}"],
        ["made from", f"{origin.checkpoint} (sha256 {origin.checkpoint_sha256[:16]}…)"],
        ["made by", f"{origin.exporter}, {origin.created}"],
        ["with", ", ".join(f"{name} {version}" for name, version in origin.versions.items())],
        *[["note", note] for note in origin.notes],
        *[["quality", f"{name}: {value:g}"] for name, value in manifest.quality.items()],
    ]
    console.table("\nsettings", ["", ""], rows)
