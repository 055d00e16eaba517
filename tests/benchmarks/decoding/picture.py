"""The comparison as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decoding.turns import Speeds


def draw(speeds: Speeds, contexts: Sequence[int], conditions: Mapping[str, Any], path: Path) -> Path | str:
    """Tokens a second by context, quartiles as whiskers; returns where it is, or why it is not."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no picture: pip install matplotlib"
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    names = list(speeds.decode[contexts[0]])
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        quartiles = [np.quantile(1 / np.array(speeds.decode[n][name]), [0.25, 0.5, 0.75]) for n in contexts]
        low, middle, high = np.array(quartiles).T
        at = np.arange(len(contexts)) + (place - (len(names) - 1) / 2) * width
        bars = axes.bar(at, middle, width, yerr=(middle - low, high - middle), label=name, capsize=2)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
    axes.set_xticks(range(len(contexts)), [f"{n} of context" for n in contexts])
    axes.set_ylabel("tokens a second")
    axes.set_title(
        f"SmolLM2-135M, decoding one token at a time: {conditions['processor']}, {conditions['threads']} threads, "
        f"{conditions['date']}",
        fontsize=9,
    )
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path
