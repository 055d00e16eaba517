"""A graph as ONNX Runtime has optimized it, kept beside the graph, so that the next start need not do it again.

More than half of the time in which a graph is loaded goes into looking for what can be fused and folded. Weights that
are left as they were stay in the graph's own files: what is kept is small then, and processes go on sharing them.
Weights that become others would be copied, on disk and while they are loaded: that is done for small ones only.

What is kept holds for one graph, one ONNX Runtime with its settings, and one processor: their hash is in its name. So
is which file the graph is and when the system last noted a change to it. Nobody who hands a bundle on can choose that:
what lies in a bundle from elsewhere is not believed, and made anew. The content's hash is in the name, too, against
damage.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.cores import processor_instructions
from sottovoce.runtime.hashing import file_sha256

SUFFIX, UNFINISHED_SUFFIX = ".optimized", ".optimizing"
HASH_DIGITS = 16
MOST_CHANGED_WEIGHTS = 32 << 20
"""Bytes of weights that become others of which the outcome is kept, if that was known before."""
MOST_BYTES = 64 << 20
"""Of an outcome. Of a larger one an empty file is kept, so that it is not tried again."""
MOST_KEPT = 4
"""Of one graph: of several installations or settings."""
ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class OptimizedGraph:
    """Where the outcome for one graph is, or would be.

    Args:
        graph: the `.onnx` file.
        key: hash of all that it depends on.
    """

    graph: Path
    key: str

    @classmethod
    def of(
        cls, graph: Path, data: Sequence[Path], settings: Sequence[str], *, changes_weights: bool
    ) -> OptimizedGraph | None:
        """The outcome's place, or None where none is to be kept.

        Args:
            graph: the `.onnx` file.
            data: its weights.
            settings: what else the outcome depends on: versions, options, libraries.
            changes_weights: whether they are known to become others: widened, or laid out for a kernel.

        Raises:
            OSError: a file is not there.
        """
        if changes_weights and sum(path.stat().st_size for path in data) > MOST_CHANGED_WEIGHTS:
            return None
        parts = [*(file_identity(path) for path in (graph, *data)), processor_instructions(), *settings]
        return cls(graph, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:HASH_DIGITS])

    def find(self) -> Path | None:
        """What was kept, if it is there and whole; empty if there was too much to keep."""
        with suppress(OSError):
            for path in self.graph.parent.glob(f"{self._stem}.{self.key}.*{SUFFIX}"):
                content = path.name.removesuffix(SUFFIX).rpartition(".")[2]
                if not path.is_symlink() and file_sha256(path)[:HASH_DIGITS] == content:
                    return path
                path.unlink()
        return None

    @contextmanager
    def keep(self) -> Iterator[Path | None]:
        """A new file to write the outcome into; leaving the block gives it its name, or removes it after an error.

        None where no file can be written: that costs the next start time, and nothing else.
        """
        written = self._new_file()
        try:
            yield written
            if written is not None:
                self._name(written)
        finally:
            if written is not None:
                self.forget(written)

    def forget(self, written: Path) -> None:
        """Remove what cannot be used, if it is there."""
        with suppress(OSError):
            written.unlink(missing_ok=True)

    def _new_file(self) -> Path | None:
        try:
            number, name = tempfile.mkstemp(UNFINISHED_SUFFIX, f".{self._stem}.", self.graph.parent)
        except OSError:
            return None
        os.close(number)
        return Path(name)

    def _name(self, written: Path) -> None:
        with suppress(OSError):
            if written.stat().st_size > MOST_BYTES:
                os.truncate(written, 0)
            written.chmod(self.graph.stat().st_mode & 0o777)  # whoever reads the graph reads this
            name = f"{self._stem}.{self.key}.{file_sha256(written)[:HASH_DIGITS]}{SUFFIX}"
            os.replace(written, self.graph.parent / name)
            self._tidy()

    @property
    def _stem(self) -> str:
        return self.graph.stem

    def _tidy(self) -> None:
        folder = self.graph.parent
        kept = [(path.stat().st_mtime, path) for path in folder.glob(f"{self._stem}.*{SUFFIX}")]
        for _, path in sorted(kept)[:-MOST_KEPT]:
            path.unlink(missing_ok=True)
        for path in folder.glob(f".{self._stem}.*{UNFINISHED_SUFFIX}"):  # of processes that were killed
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink(missing_ok=True)


def remove_kept(folder: Path) -> None:
    """Remove all that was kept of the graphs in a folder and those in it: a bundle is written without.

    Raises:
        OSError: the folder cannot be written.
    """
    for suffix in (SUFFIX, UNFINISHED_SUFFIX):
        for path in folder.rglob(f"*{suffix}"):
            path.unlink(missing_ok=True)


def file_identity(path: Path) -> str:
    """Tells a file in its present state from every other: the system, not who wrote it, sets the time of change."""
    found = path.stat()
    return f"{found.st_ino} {found.st_ctime_ns} {found.st_size}"
