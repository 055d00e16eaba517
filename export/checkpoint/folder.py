"""Where a checkpoint and its component folders are: a folder here, or a Hugging Face id."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from sottovoce.runtime.errors import CheckpointError

WANTED = ("*.json", "*.yaml", "*.safetensors", "*.pt", "*global_cmvn", "*.txt")
"""Files of a repository that a checkpoint is made of."""

COMPONENT_FILES = ("config.json", "preprocessor_config.json", "train.yaml", "global_cmvn")
"""Small files of a component that lives in a repository of its own; its weights are in the main files."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def resolve_checkpoint(reference: str) -> Path:
    """The folder of a checkpoint given as a path or as a Hugging Face id (`owner/name`), downloaded if need be.

    Raises:
        CheckpointError: no such folder, and no such repository or no way to reach it.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError("is a file, expected a checkpoint's folder", file=folder, fix="name the folder it is in")
    if not _HUB_ID.fullmatch(reference):
        raise CheckpointError(
            "there is no such folder, and it is not a Hugging Face id (owner/name)",
            file=reference,
            fix="give the folder that holds config.json",
        )
    return _download(reference, WANTED)


def component_folder(checkpoint: Path, name: str, key: str) -> Path:
    """The folder of one component: below the checkpoint, or of the same base name in it or beside it.

    A relative name is looked for in the checkpoint. Of an absolute path or hub id only the last part counts, so that
    a checkpoint from elsewhere can neither read files outside nor depend on where it was trained; a hub id that is in
    neither place is taken from the local Hugging Face cache.

    Args:
        checkpoint: the checkpoint's folder.
        name: what `config.json` says.
        key: the key that says it, for messages.

    Raises:
        CheckpointError: a name that climbs out of the checkpoint, or no such folder.
    """
    source = checkpoint / "config.json"
    parts = PureWindowsPath(name).parts if "\\" in name else PurePosixPath(name).parts
    if not parts or "\0" in name or ".." in parts or parts[-1] in ("/", "\\"):
        raise CheckpointError(
            f"{key} is {name!r}, expected a folder inside the checkpoint",
            file=source,
            fix=f"put the folder into the checkpoint and its name into {key!r}",
        )
    base = parts[-1]
    absolute = name.startswith(("/", "~")) or PureWindowsPath(name).is_absolute()
    candidates = [checkpoint / base, checkpoint.resolve().parent / base]
    if not absolute:
        candidates.insert(0, checkpoint.joinpath(*parts))
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    cached = None if absolute else _cached(name)
    if cached is not None:
        return cached
    download = f" (hf download {name} --local-dir {checkpoint / base})" if _HUB_ID.fullmatch(name) else ""
    raise CheckpointError(
        f"{key} is {name!r}, but there is no folder {base!r} in the checkpoint or beside it",
        file=source,
        fix=f"put that component's folder at {checkpoint / base}{download}",
    )


def _download(repository: str, patterns: tuple[str, ...]) -> Path:
    """Fetch a repository, and the component folders that its `config.json` names by hub id."""
    folder = _snapshot(repository, patterns)
    from sottovoce.export.checkpoint.config_file import ConfigFile

    settings = ConfigFile(folder / "config.json").read_json() if (folder / "config.json").exists() else {}
    for key in ("mm_vision_tower", "mm_audio_encoder"):
        name = settings.get(key) if isinstance(settings, dict) else None
        if isinstance(name, str) and _HUB_ID.fullmatch(name):
            here = (folder / name, folder / PurePosixPath(name).name)
            if not any(candidate.is_dir() for candidate in here):
                _snapshot(name, COMPONENT_FILES)
    return folder


def _snapshot(repository: str, patterns: tuple[str, ...]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as problem:
        raise CheckpointError(
            f"{repository!r} is no folder here, and huggingface_hub is not installed to download it",
            fix="pip install 'sottovoce[export]', or download the checkpoint by hand",
        ) from problem
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except (OSError, ValueError, RuntimeError) as problem:  # the hub's own errors derive from these
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise CheckpointError(
            f"{repository!r} is no folder here, and Hugging Face did not give it: {reason}",
            fix="check the spelling and the network, log in with `hf auth login` if it is private, or give a folder",
        ) from problem


def _cached(name: str) -> Path | None:
    """A repository's folder in the local Hugging Face cache; never asks the network."""
    if not _HUB_ID.fullmatch(name):
        return None
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, local_files_only=True))
    except (ImportError, OSError, ValueError, RuntimeError):
        return None
