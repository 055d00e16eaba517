"""A bundle whose graphs were changed, made one that is believed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from sottovoce.runtime.manifest import GraphSpec, StageName
from sottovoce.runtime.records import write_record


def seal(folder: Path, specs: Mapping[StageName, GraphSpec]) -> None:
    """Write these graphs' contracts, sizes and hashes into the manifest."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for stage, spec in specs.items():
        manifest["graphs"][stage] = write_record(spec)
        for name in (spec.file, *spec.data):
            data = (folder / name).read_bytes()
            manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(manifest), encoding="utf-8")
