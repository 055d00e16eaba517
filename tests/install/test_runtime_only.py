"""The runtime alone, as a device gets it: a wheel with no extras in an environment of its own, answering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = REPOSITORY / "setup" / "constraints.txt"
FORBIDDEN = ("torch", "transformers", "onnx", "scipy")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the built wheel and nothing else of ours."""
    folder = tmp_path_factory.mktemp("runtime-only")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(REPOSITORY)], check=True
    )
    wheels = list(folder.glob("sottovoce-*.whl"))
    assert len(wheels) == 1, wheels
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", CONSTRAINTS, wheels[0]],
        check=True,
    )
    return folder / "venv"


def installed_megabytes(environment: Path) -> float:
    """Bytes on disk of the environment's packages, without pip itself."""
    [packages] = environment.glob("lib/python*/site-packages")
    files = (
        f for f in packages.rglob("*") if f.is_file() and f.relative_to(packages).parts[0] not in ("pip", "setuptools")
    )
    return sum(f.stat().st_size for f in files) / 1e6


def test_the_wheel_answers_without_torch(
    environment: Path, tiny_bundle: Path, golden_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = tmp_path / "reply.wav"
    command = [environment / "bin" / "sottovoce", "run", tiny_bundle, "--audio", golden_dir / "speech.wav", "--greedy"]
    command += ["--max-new-tokens", "12", "-o", reply, "--json"]
    # An empty working directory and no PYTHONPATH: nothing of the source tree can be imported by accident.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["tokens"]) == 12
    with capsys.disabled():
        print(f"\nruntime-only install: {installed_megabytes(environment):.0f} MB on disk")


def test_none_of_the_exporter_comes_along(environment: Path) -> None:
    check = f"import importlib.util as u; print([n for n in {FORBIDDEN!r} if u.find_spec(n)])"
    found = subprocess.run([environment / "bin" / "python", "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_export_says_what_it_lacks(environment: Path, tmp_path: Path) -> None:
    command = [environment / "bin" / "sottovoce", "export", "checkpoint", "-o", "x.bundle"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 1
    assert "pip install 'sottovoce[export]'" in ran.stderr
    assert "Traceback" not in ran.stderr
