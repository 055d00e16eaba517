"""The `global_cmvn` file: sums over the training data → mean and inverse deviation of each mel bin.

Two spellings of the same sums: wenet's JSON, and Kaldi's text matrix `[ sums… count  sums of squares… 0 ]`
(Kaldi compute-cmvn-stats).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sottovoce.export.checkpoint.config_file import MAX_BYTES, ConfigFile
from sottovoce.runtime.errors import CheckpointError

LEAST_VARIANCE = 1e-20


def read_global_cmvn(path: Path, *, is_json: bool, mel_bins: int) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation, two float32 tensors of `mel_bins`.

    Raises:
        CheckpointError: missing, malformed, not finite, or of another number of bins.
    """
    sums, squares, count = _json_sums(path) if is_json else _kaldi_sums(path)
    if len(sums) != mel_bins or len(squares) != mel_bins:
        raise CheckpointError(
            f"has {len(sums)} means and {len(squares)} variances, expected {mel_bins} (the mel bins of train.yaml)",
            file=path,
            fix="take global_cmvn and train.yaml from the same release",
        )
    if not count > 0 or not all(map(math.isfinite, (*sums, *squares, count))):
        raise CheckpointError(f"has sums that are not finite, or a frame count of {count:g}", file=path)
    mean = np.asarray(sums, np.float64) / count
    variance = np.maximum(np.asarray(squares, np.float64) / count - mean**2, LEAST_VARIANCE)
    return torch.from_numpy(mean).float(), torch.from_numpy(1 / np.sqrt(variance)).float()


def _json_sums(path: Path) -> tuple[list[float], list[float], float]:
    data = ConfigFile(path).read_json()
    try:
        return list(map(float, data["mean_stat"])), list(map(float, data["var_stat"])), float(data["frame_num"])
    except (TypeError, KeyError, ValueError) as problem:
        raise CheckpointError(
            "is not the JSON {mean_stat, var_stat, frame_num} that train.yaml's is_json_cmvn announces",
            file=path,
            fix="set is_json_cmvn to false if the file is Kaldi's text",
        ) from problem


def _kaldi_sums(path: Path) -> tuple[list[float], list[float], float]:
    malformed = CheckpointError(
        "is not Kaldi's text matrix [ sums… count  sums of squares… 0 ]",
        file=path,
        fix="set is_json_cmvn to true if the file is JSON; write a binary matrix as text (copy-matrix --binary=false)",
    )
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise CheckpointError("is missing" if not path.is_file() else "is too large", file=path)
    try:
        words = path.read_text(encoding="utf-8").split()
        if len(words) < 6 or words[0] != "[" or words[-1] != "]" or len(words) % 2:
            raise malformed
        values = list(map(float, words[1:-1]))
    except ValueError as problem:
        raise malformed from problem
    half = len(values) // 2
    return values[: half - 1], values[half:-1], values[half - 1]
