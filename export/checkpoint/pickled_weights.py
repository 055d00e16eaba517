"""`final.pt` files: state dicts in PyTorch's zip or older format, read so that nothing in them can run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sottovoce.runtime.errors import CheckpointError

WRAPPERS = ("model", "state_dict")
"""Keys under which trainers put the state dict beside the optimizer's state."""

CODEC_PARTS = ("generator", "quantizer")

_UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What the restricted unpickler raises on files that are damaged or made to confuse it."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` file that is a state dict, or holds one under `model`.

    Raises:
        CheckpointError: missing, damaged, or holding anything but tensors.
    """
    value = _load(path)
    for key in WRAPPERS:
        if isinstance(value.get(key), Mapping):
            value = value[key]
            break
    return _tensors(path, value, prefix="")


def read_codec_state(path: Path) -> dict[str, Tensor]:
    """The codec's decoding parts, names as `generator.…` and `quantizer.…`; its encoder is left where it is.

    Raises:
        CheckpointError: a part is missing, or as `read_state_dict`.
    """
    value = _load(path)
    state: dict[str, Tensor] = {}
    for part in CODEC_PARTS:
        if not isinstance(value.get(part), Mapping):
            found = ", ".join(map(repr, list(value)[:6]))
            raise CheckpointError(
                f"has no part {part!r} (found {found}), expected {{'generator': …, 'quantizer': …}}",
                file=path,
                fix="take the codec's final.pt from the release",
            )
        state |= _tensors(path, value[part], prefix=part + ".")
    return state


def _load(path: Path) -> Mapping[Any, Any]:
    if not path.is_file():
        raise CheckpointError("is missing", file=path, fix="download the checkpoint again, with all its files")
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_compression(path)
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"contains code or objects other than tensors, which are never run: {_first_line(problem)}",
            file=path,
            fix="do not use this file unless you made it; if you did, save the model's state_dict() alone",
        ) from problem
    except _UNREADABLE as problem:
        raise CheckpointError(
            f"is damaged or not a PyTorch file: {_first_line(problem)}", file=path, fix="download this file again"
        ) from problem
    if not isinstance(value, Mapping):
        raise CheckpointError(f"holds a {type(value).__name__}, expected a state dict", file=path)
    return value


def _refuse_compression(path: Path) -> None:
    """PyTorch stores without compression; a compressed archive may unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as problem:
        raise CheckpointError(f"is damaged: {problem}", file=path, fix="download this file again") from problem
    if packed:
        raise CheckpointError(
            f"is a compressed archive ({packed[0]}), expected a file as torch.save writes it",
            file=path,
            fix="load and save it again with PyTorch",
        )


def _tensors(path: Path, state: Mapping[Any, Any], prefix: str) -> dict[str, Tensor]:
    tensors = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise CheckpointError(
                f"entry {prefix}{name} is a {type(value).__name__}, expected a dense tensor",
                file=path,
                fix="save the model's state_dict() alone",
            )
        tensors[prefix + name] = value.detach()
    return tensors


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip()
    return text.splitlines()[0][:200] if text else type(problem).__name__
