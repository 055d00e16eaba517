"""Several processes that hold one bundle hold its weights once: mapped from the files, and never written to."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.manifest import STAGES

MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)$")


def mapped_kilobytes(folder: Path) -> dict[str, dict[str, int]]:
    """Of each file in the folder that this process has mapped: kB by kind, as Linux counts them."""
    found: dict[str, dict[str, int]] = {}
    current: dict[str, int] = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        mapping = MAPPING.match(line)
        if mapping:
            path = mapping.group(1)
            current = found.setdefault(path, {}) if path.startswith(str(folder)) else {}
        elif line.endswith(" kB"):
            kind, amount = line.split(":")
            current[kind] = current.get(kind, 0) + int(amount.split()[0])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="counts mappings as Linux shows them")
def test_weights_are_mapped_and_stay_as_they_are(tiny_bundle: Path) -> None:
    with Assistant.open(tiny_bundle, threads=1) as assistant:
        assistant.widened_stages()  # loads all stages
        for _ in assistant.say("hello", greedy=True):
            pass
        assistant._model.token_embeddings.rows(np.arange(4))
        mapped = mapped_kilobytes(tiny_bundle)
    spoken = {name for stage in ("speech_text", "speech_codes", "codec") for name in assistant.bundle.graph(stage).data}
    for name in {name for stage in STAGES for name in assistant.bundle.graph(stage).data}:
        kinds = mapped[str(tiny_bundle / name)]
        assert kinds["Rss"] > 0 or name not in spoken, name
        assert kinds["Private_Dirty"] == 0, f"{name}: {kinds['Private_Dirty']} kB are this process's own"
