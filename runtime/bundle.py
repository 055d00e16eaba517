"""The folder's manifest: read, checked, refused with a reason.

A bundle is believed only after these checks: format and family known, every key known, every graph there with the
tensors its stage needs, every path inside the folder, every file there with its size and SHA-256.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sottovoce.runtime.contracts import check_contracts
from sottovoce.runtime.errors import BundleError, SottovoceError
from sottovoce.runtime.hashing import file_sha256, files_sha256
from sottovoce.runtime.manifest import FORMAT_VERSION, MODEL_FAMILY, STAGES, BundleManifest, GraphSpec, StageName
from sottovoce.runtime.progress import Progress, SilentProgress
from sottovoce.runtime.records import read_record

MANIFEST_FILE = "bundle.json"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
"""A full-size manifest is some hundred kilobytes; more than this is not one."""
EXPORT_AGAIN = "export the checkpoint again, or copy the whole folder again"


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: where it is and what it says."""

    path: Path
    manifest: BundleManifest

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, verify_hashes: bool = True, progress: Progress | None = None
    ) -> Bundle:
        """Read and check the bundle in the folder `path`.

        Args:
            path: the bundle's folder.
            verify_hashes: read every file once and compare its SHA-256 (about a second per gigabyte and core).
                Sizes are compared in any case.
            progress: told of the hashing, which is what takes time.

        Raises:
            BundleError: not a bundle, of another version or family, damaged, or reaching outside its folder.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        bundle = cls(folder, manifest)
        bundle._check_files()
        check_contracts(manifest, folder / MANIFEST_FILE)
        if verify_hashes:
            bundle.verify_hashes(progress or SilentProgress())
        return bundle

    def file(self, name: str) -> Path:
        """The path of one of the bundle's files, named as in the manifest ("graphs/codec.onnx").

        Raises:
            BundleError: the manifest has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"the file {name!r} is used but has no entry under 'files'",
                file=self.path / MANIFEST_FILE,
                fix=EXPORT_AGAIN,
            )
        return self.path / PurePosixPath(name)

    def graph(self, stage: StageName) -> GraphSpec:
        """The contract of one stage."""
        return self.manifest.graphs[stage]

    @property
    def weights_bytes(self) -> int:
        """Size of everything a full conversation loads: graphs, their weights and the embedding tables."""
        manifest = self.manifest
        tables = (name for table in (manifest.token_embeddings, manifest.code_embeddings) for name in table.files)
        graphs = (name for spec in manifest.graphs.values() for name in (spec.file, *spec.data))
        return sum(manifest.files[name].bytes for name in {*tables, *graphs})

    @property
    def sha256(self) -> str:
        """Of `bundle.json`, which holds the hashes of all other files: it tells this bundle from every other."""
        return file_sha256(self.path / MANIFEST_FILE)

    def verify_hashes(self, progress: Progress, names: Collection[str] | None = None) -> None:
        """Compare the SHA-256 of every file, or of those with these names, with the manifest.

        Raises:
            BundleError: a file is not what was exported; names it.
        """
        every = self.manifest.files
        records = every if names is None else {name: every[name] for name in names}
        total, done = sum(record.bytes for record in records.values()), 0
        paths = [self.file(name) for name in records]
        with closing(files_sha256(paths)) as hashes:
            for path, record, found in zip(paths, records.values(), hashes, strict=True):
                if found != record.sha256:
                    message = (
                        f"its SHA-256 is {found}, the manifest says {record.sha256}: the file was changed or damaged"
                    )
                    raise BundleError(message, file=path, fix=EXPORT_AGAIN)
                done += record.bytes
                progress.step("checking files", done, total)

    def _check_files(self) -> None:
        """Every file of the manifest lies in the folder with its size, and every file that is used is listed."""
        root = self.path.resolve()
        for name, record in self.manifest.files.items():
            path = self._inside(name, root)
            if not path.is_file():
                raise BundleError("this file of the bundle is missing", file=path, fix=EXPORT_AGAIN)
            size = path.stat().st_size
            if size != record.bytes:
                message = f"it has {size} bytes, the manifest says {record.bytes}"
                raise BundleError(message, file=path, fix=EXPORT_AGAIN)
        manifest = self.manifest
        used = [manifest.tokenizer, *manifest.token_embeddings.files, *manifest.code_embeddings.files]
        used += [name for spec in manifest.graphs.values() for name in (spec.file, *spec.data)]
        for name in used:
            self.file(name)

    def _inside(self, name: str, root: Path) -> Path:
        """The file's path, if following links does not leave the bundle."""
        parts = PurePosixPath(name).parts
        strange = not name or "\\" in name or "\0" in name or ":" in name
        if strange or PurePosixPath(name).is_absolute() or ".." in parts or ".." in name.split("/"):
            raise self._leaves(name)
        path = self.path / PurePosixPath(name)
        resolved = path.resolve()
        if root not in resolved.parents:
            raise self._leaves(name)
        return path

    def _leaves(self, name: str) -> BundleError:
        return BundleError(
            f"the path {name!r} leaves the bundle's folder",
            file=self.path / MANIFEST_FILE,
            fix="do not use this bundle: it was tampered with or written by a broken tool",
        )


def _read_manifest(folder: Path) -> BundleManifest:
    """Parse `bundle.json` of `folder`; version and family are looked at before anything else."""
    path = folder / MANIFEST_FILE
    data = _read_json(folder, path)
    version, family = data.get("format_version"), data.get("model_family")
    if version != FORMAT_VERSION or isinstance(version, bool):
        message = f"format_version is {version!r}; this sottovoce reads version {FORMAT_VERSION}"
        raise BundleError(message, file=path, fix="export it again with this sottovoce, or use the one that wrote it")
    if family != MODEL_FAMILY:
        message = f"model_family is {family!r}; this sottovoce runs {MODEL_FAMILY!r}"
        raise BundleError(message, file=path, fix="use a bundle of that family")
    try:
        manifest = read_record(BundleManifest, data, source=str(path))
    except SottovoceError as problem:
        raise BundleError(problem.message, file=path, fix=problem.fix or EXPORT_AGAIN) from problem
    missing = [stage for stage in STAGES if stage not in manifest.graphs]
    unknown = [stage for stage in manifest.graphs if stage not in STAGES]
    if missing or unknown:
        found = f"graphs that are missing: {missing or 'none'}; not known: {unknown or 'none'}"
        raise BundleError(f"{found}; expected exactly {', '.join(STAGES)}", file=path, fix=EXPORT_AGAIN)
    return manifest


def _read_json(folder: Path, path: Path) -> dict[str, Any]:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise BundleError(f"not a bundle: {what}", file=folder, fix="give the folder that `sottovoce export` wrote")
    if not path.is_file():
        message = f"not a bundle: it holds no {MANIFEST_FILE}"
        raise BundleError(message, file=folder, fix="give the folder that `sottovoce export` wrote")
    size = path.stat().st_size
    if size > MAX_MANIFEST_BYTES:
        message = f"it has {size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}"
        raise BundleError(message, file=path, fix=EXPORT_AGAIN)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise BundleError(f"it is not JSON in UTF-8 ({problem})", file=path, fix=EXPORT_AGAIN) from problem
    if not isinstance(data, dict):
        raise BundleError(f"it holds a {type(data).__name__}, expected an object", file=path, fix=EXPORT_AGAIN)
    return data
