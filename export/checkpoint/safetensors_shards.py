"""The main weights of a checkpoint: sharded safetensors, their headers checked before anything of them is used.

Only headers are read at first, bounded; tensors are views of the mapped files, so that 17 GB of weights pass through
a machine that has less memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sottovoce.export.checkpoint.config_file import ConfigFile
from sottovoce.runtime.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_HEADER_BYTES = 100 << 20
"""The format's own limit."""

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Stored types that weights may have."""

DOWNLOAD_AGAIN = "download this file again; its size and checksum are listed where the checkpoint came from"


@dataclass(frozen=True)
class StoredTensor:
    """What a header says of one tensor: its type as the format spells it, its shape and its file."""

    dtype: str
    shape: tuple[int, ...]
    file: Path


@dataclass(frozen=True)
class Shards:
    """Safetensors files that together hold a set of tensors."""

    tensors: Mapping[str, StoredTensor]
    mapped: Mapping[Path, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, sorted."""
        return tuple(self.mapped)

    def tensor(self, name: str) -> Tensor:
        """One tensor, a view of the mapped file in its stored type.

        Raises:
            KeyError: there is no tensor of that name.
        """
        tensor = self.mapped[self.tensors[name].file].get_tensor(name)
        assert isinstance(tensor, torch.Tensor)  # noqa: S101  # the format knows no other value
        return tensor


def open_main_shards(folder: Path) -> Shards:
    """The main weights: the shards that the index lists, or a single `model.safetensors`.

    Raises:
        CheckpointError: a shard missing, truncated, damaged or not listed; a tensor missing from its shard or held
            by two; no weights at all.
    """
    index = folder / INDEX
    if not index.exists():
        return open_shards([_single(folder)])
    weight_map = _read_index(index)
    files = [folder / name for name in dict.fromkeys(weight_map.values())]
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"shard {file.name} is missing: {INDEX} lists it ({len(files)} shards)",
                file=file,
                fix="download the missing shard into the checkpoint's folder",
            )
    _refuse_extra_files(folder, files)
    shards = open_shards(files)
    _compare_with_index(index, weight_map, shards)
    return shards


def open_shards(files: Iterable[Path]) -> Shards:
    """Read the headers of safetensors files and map them.

    Raises:
        CheckpointError: a file is truncated or damaged, or two hold the same tensor.
    """
    tensors: dict[str, StoredTensor] = {}
    paths = tuple(sorted(files))
    for path in paths:
        for name, stored in read_header(path).items():
            if name in tensors:
                raise CheckpointError(
                    f"tensor {name!r} is in this shard and in {tensors[name].file.name}, expected in one of them",
                    file=path,
                    fix="remove the shard that does not belong to this checkpoint",
                )
            tensors[name] = stored
    return Shards(tensors, {path: _map(path) for path in paths})


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors a safetensors file says it holds, after checking that it can hold them.

    Raises:
        CheckpointError: truncated, damaged, or not a safetensors file.
    """
    size = _size(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= MAX_HEADER_BYTES:
            raise _damaged(path, f"is not a safetensors file: {size} bytes, a header of {length}")
        if 8 + length > size:
            raise _truncated(path, size, 8 + length, "its header alone ends at")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise _damaged(path, f"has a header that is not JSON: {problem}") from problem
    if not isinstance(header, dict):
        raise _damaged(path, "has a header that is not a JSON object")
    header.pop("__metadata__", None)
    tensors = {name: _stored_tensor(path, name, entry) for name, entry in header.items()}
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > size:
        raise _truncated(path, size, end, "its header describes")
    return tensors


def _stored_tensor(path: Path, name: str, entry: Any) -> StoredTensor:
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        start, end = entry["data_offsets"]
        whole = all(isinstance(value, int) and value >= 0 for value in (*shape, start, end))
    except (TypeError, KeyError, ValueError) as problem:
        raise _damaged(path, f"has a malformed header entry for tensor {name!r}") from problem
    if not whole or not isinstance(dtype, str):
        raise _damaged(path, f"has a malformed header entry for tensor {name!r}")
    width = BYTES.get(dtype)
    if width is not None and end - start != math.prod(shape) * width:
        raise _damaged(
            path,
            f"tensor {name!r} takes {end - start} bytes, expected {math.prod(shape) * width} of {dtype} {list(shape)}",
        )
    return StoredTensor(dtype, shape, path)


def _map(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as problem:
        raise _damaged(path, f"cannot be mapped: {problem}") from problem


def _single(folder: Path) -> Path:
    path = folder / SINGLE
    if path.is_file():
        _refuse_extra_files(folder, [path])
        return path
    shards = sorted(folder.glob("*.safetensors"))
    if shards:
        raise CheckpointError(
            f"{INDEX} is missing, but there are shards such as {shards[0].name}",
            file=folder / INDEX,
            fix="download the index of the shards into the checkpoint's folder",
        )
    pickled = sorted(folder.glob("pytorch_model*.bin"))
    found = f"only {pickled[0].name}" if pickled else "no weights"
    raise CheckpointError(
        f"has {found}, expected {INDEX} with its shards or {SINGLE}",
        file=folder,
        fix="convert the weights to safetensors" if pickled else "download the checkpoint's weights",
    )


def _read_index(path: Path) -> dict[str, str]:
    file = ConfigFile(path)
    data = file.read_json()
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise file.error("has no weight_map from tensors to shards", fix=DOWNLOAD_AGAIN)
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise file.error(
                f"puts tensor {name!r} into {shard!r}, expected the name of a .safetensors file in the same folder",
                fix="take the index from where the checkpoint was published",
            )
    return weight_map


def _compare_with_index(index: Path, weight_map: Mapping[str, str], shards: Shards) -> None:
    for name, shard in weight_map.items():
        stored = shards.tensors.get(name)
        if stored is None or stored.file.name != shard:
            where = f"{stored.file.name} does" if stored else "no shard does"
            raise CheckpointError(
                f"{INDEX} puts tensor {name!r} into this shard, which does not hold it ({where})",
                file=index.parent / shard,
                fix="download the index and the shards from the same release",
            )
    unlisted = [name for name in shards.tensors if name not in weight_map]
    if unlisted:
        raise CheckpointError(
            f"holds {len(unlisted)} tensors that {INDEX} does not list, such as {unlisted[0]!r}",
            file=shards.tensors[unlisted[0]].file,
            fix="download the index and the shards from the same release",
        )


def _refuse_extra_files(folder: Path, used: Iterable[Path]) -> None:
    names = {path.name for path in used}
    extra = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in names)
    if extra:
        listed = INDEX if (folder / INDEX).exists() else SINGLE
        raise CheckpointError(
            f"{len(extra)} weight files are not part of the checkpoint that {listed} describes: {', '.join(extra[:3])}",
            file=folder / extra[0],
            fix="move the extra files out of the folder, or take the index that belongs to them",
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as problem:
        raise CheckpointError(f"cannot be read: {problem.strerror or problem}", file=path) from problem


def _truncated(path: Path, size: int, expected: int, what: str) -> CheckpointError:
    return CheckpointError(f"is truncated: it has {size} bytes, {what} {expected}", file=path, fix=DOWNLOAD_AGAIN)


def _damaged(path: Path, message: str) -> CheckpointError:
    return CheckpointError(message, file=path, fix=DOWNLOAD_AGAIN)
