"""The asking side of `peer_protocol`: a runtime in its own process and Python; one that fails says how, and is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent


class PeerMissingError(Exception):
    """A runtime is not installed, or cannot load the model: the reason."""


@dataclass
class AskedPeer:
    """One process.

    Args:
        name: as the table has it.
        command: starts it, the script's name (in this folder) second.
        threads: that libraries may use which look at the environment.
    """

    name: str
    command: Sequence[str]
    threads: int
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        python, script, *arguments = self.command
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process
        try:
            self._process = subprocess.Popen(
                [python, str(SCRIPTS / script), *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True, env=environment,
            )  # fmt: skip
        except OSError as problem:
            raise PeerMissingError(f"{python}: {problem.strerror}") from problem
        self.versions = self.ask(do="hello")["versions"]

    def ask(self, **question: Any) -> dict[str, Any]:
        """Its answer; nothing else computes meanwhile.

        Raises:
            PeerMissingError: it ended.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            ended = process.wait()
            how = f"ended by {signal.Signals(-ended).name}" if ended < 0 else "it ended"
            self._complaints.seek(0)
            lines = self._complaints.read().strip().splitlines() or [how]
            raise PeerMissingError(lines[-1][:160])
        return dict(json.loads(answer))

    def close(self) -> None:
        """Let it end."""
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def build_with(python: str, script: str, source: Path, output: Path) -> None:
    """Let a peer's own builder write its model, once.

    Raises:
        PeerMissingError: it cannot; nothing is left behind then.
    """
    if output.exists():
        return
    written = output.with_name(f"{output.name}.partial")
    shutil.rmtree(written, ignore_errors=True)
    command = [python, str(SCRIPTS / script), "build", str(source), str(written)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as problem:
        raise PeerMissingError(f"{python}: {problem.strerror}") from problem
    if done.returncode:
        shutil.rmtree(written, ignore_errors=True)
        raise PeerMissingError((done.stderr.strip().splitlines() or ["it failed"])[-1][:160])
    written.rename(output)
