"""`--backend` and `--require-engine` on a machine without a GPU: what is said, and what goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from sottovoce.runtime.cli import COMMANDS, application, main

QUESTION = ["--text", "hello", "--greedy", "--max-new-tokens", "3", "--no-speech", "--json"]
FEW_MODULES = (
    "import sys; from sottovoce.runtime.cli import main; code = main({arguments!r}); "
    "print(sorted({{name.partition('.')[0] for name in sys.modules}} & {{'tensorrt', 'tensorrt_rtx', 'pycuda'}}), "
    "code, file=sys.stderr)"
)


@pytest.mark.parametrize(
    "command",
    [
        ["run", "{}", *QUESTION],
        ["say", "{}", "hello", "-o", "speech.wav"],
        ["profile", "{}"],
        ["chat", "{}", "--silent"],
        ["evaluate", "{}", "--set", "set"],
        ["inspect", "{}"],
    ],
)
def test_an_engine_is_required(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.jsonl").write_text('{"task": "typed_question", "text": "hello", "reply": "Hello."}\n')
    monkeypatch.setattr("sottovoce.runtime.profiling.profiler.measure_ceilings", lambda *_: None)  # takes ten seconds
    arguments = [word.format(tiny_bundle) for word in command]
    assert main([*arguments, "--require-engine", *([] if "--json" in arguments else ["--json"])]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "no engine that can be used, and one is required" in error["message"]
    assert error["fix"]


def test_who_chooses_a_backend_may_require_engines() -> None:
    commands = {name: application.get_command(click.Context(application), name) for name in COMMANDS}
    flags = {name: {flag for one in command.params for flag in one.opts} for name, command in commands.items()}
    choosing = {name for name, given in flags.items() if "--backend" in given}
    assert choosing == {name for name, given in flags.items() if "--require-engine" in given}
    assert choosing >= {"run", "say", "chat", "replay", "evaluate", "profile", "inspect"}


def test_a_backend_that_has_no_engines(tiny_bundle: Path, capsys: Any) -> None:
    assert main(["run", str(tiny_bundle), *QUESTION, "--backend", "cuda", "--require-engine"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "the backend 'cuda' has none" in error["message"]


def test_without_an_engine_the_reason_is_said_once_and_the_cpu_answers(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "sottovoce.runtime", "run", str(tiny_bundle), *QUESTION]
    alone, engines = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True)
        for more in ([], ["--backend", "tensorrt"])
    )
    assert json.loads(engines.stdout)["tokens"] == json.loads(alone.stdout)["tokens"]
    assert engines.stderr.count("computed by ONNX Runtime instead of an engine: ") == 1
    assert "instead of an engine" not in alone.stderr


def test_auto_imports_nothing_of_tensorrt(tiny_bundle: Path) -> None:
    code = FEW_MODULES.format(arguments=["run", str(tiny_bundle), *QUESTION])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[] 0"
