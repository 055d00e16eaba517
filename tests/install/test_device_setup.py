"""What is in setup/device: commands that exist, a unit that parses, containers of files that are there."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sottovoce.runtime.cli import COMMANDS, application
from sottovoce.runtime.engines.targets import TARGETS

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML by itself")

REPOSITORY = Path(__file__).resolve().parents[2]
DEVICE = REPOSITORY / "setup" / "device"
DOCKERFILES = ("Dockerfile.jetson", "Dockerfile.desktop")
REGISTRIES = ("nvcr.io/nvidia/", "nvidia/")
SECRET = re.compile(
    r"(?i)(password|passwd|secret|token|api[_-]?key|credential|BEGIN [A-Z ]*PRIVATE KEY)\s*[=:]|://[^/\s]+@"
)
ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[\w-]+\.(?:local|internal|lan|corp)\b")


def page() -> str:
    return (DEVICE / "README.md").read_text(encoding="utf-8")


def shell_lines(text: str) -> Iterator[str]:
    """Commands of the page's indented blocks, and what is between backquotes."""
    for line in text.splitlines():
        if line.startswith("    "):
            yield line.strip()
    yield from (match.replace("\n", " ") for match in re.findall(r"`([^`]+)`", text))


def commands_of(text: str) -> list[list[str]]:
    """The arguments of every `sottovoce …`."""
    words = [shlex.split(line) for line in shell_lines(text) if line.startswith("sottovoce ")]
    return [line[1:] for line in words]


def check_command(arguments: list[str]) -> None:
    """Parse as the command line would, with all choices and ranges; nothing runs, no callback either."""
    root = click.Context(application)
    command = application.get_command(root, arguments[0])
    assert command is not None, f"there is no command {arguments[0]!r}"
    context = click.Context(command, parent=root, info_name=arguments[0])
    values, left, _ = command.make_parser(context).parse_args(arguments[1:])
    assert not left, f"{arguments[0]} does not take {left}"
    for parameter in command.get_params(context):
        given = parameter.name in values and isinstance(values[parameter.name], (str, list, tuple))
        assert given or not parameter.required, f"{arguments[0]} needs {parameter.name}"
        if given:
            parameter.type_cast_value(context, values[parameter.name])


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have cases
    parser.read_string((DEVICE / "sottovoce.service").read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("arguments", commands_of(page()), ids=" ".join)
def test_every_command_of_the_page_is_one(arguments: list[str]) -> None:
    check_command(arguments)


def test_the_page_has_the_whole_way_in_order() -> None:
    names = [
        arguments[0]
        for arguments in commands_of("\n".join(line for line in page().splitlines() if line.startswith("    ")))
    ]
    order = ("export", "verify", "calibrate", "quantize", "doctor", "build", "inspect", "run", "profile", "chat")
    assert list(dict.fromkeys(names)) == list(order)
    assert "Built, not run" in page()


def test_targets_of_the_page_are_targets() -> None:
    built = [line[line.index("--target") + 1] for line in commands_of(page()) if line[0] == "build"]
    assert set(built) <= set(TARGETS)
    assert "jetpack6" in built


def test_a_command_that_is_none_is_found_out() -> None:
    with pytest.raises(AssertionError, match="no command"):
        check_command(["sing"])
    with pytest.raises(click.NoSuchOption):
        check_command(["build", "assistant.bundle", "--target", "jetpack6", "--faster"])
    with pytest.raises(click.BadParameter):
        check_command(["build", "assistant.bundle", "--target", "jetpack5"])


def test_the_unit_starts_commands_that_exist(unit: configparser.ConfigParser) -> None:
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    for key in ("ExecStartPre", "ExecStart"):
        program, *arguments = shlex.split(unit["Service"][key])
        assert program == "/opt/sottovoce/bin/sottovoce"
        assert arguments[0] in COMMANDS
        check_command(arguments)


def test_the_unit_is_unprivileged_and_comes_back(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["User"] not in ("", "root", "0")
    assert "audio" in service["SupplementaryGroups"].split()
    assert service["Restart"] == "on-failure"
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateNetwork", "RestrictSUIDSGID"):
        assert service[key] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


def instructions(name: str) -> list[list[str]]:
    text = (DEVICE / name).read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [line.split() for line in lines]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_containers_are_made_of_what_is_there(name: str) -> None:
    stages = [words[3] for words in instructions(name) if words[0] == "FROM" and "AS" in words]
    for words in instructions(name):
        if words[0] == "FROM":
            image, _, tag = words[1].partition(":")
            assert image.startswith(REGISTRIES)
            assert tag not in ("", "latest")
        if words[0] == "COPY" and words[1].startswith("--from="):
            assert words[1].removeprefix("--from=") in stages
        elif words[0] == "COPY":
            assert all((REPOSITORY / source).exists() for source in words[1:-1]), words


@pytest.mark.parametrize("name", DOCKERFILES)
def test_containers_install_the_runtime_and_extras_that_exist(name: str) -> None:
    text = (DEVICE / name).read_text(encoding="utf-8")
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    chosen = [extra for group in re.findall(r"'\.\[([^\]]+)\]'", text) for extra in group.split(",")]
    assert "audio" in chosen
    assert set(chosen) <= set(extras)
    assert not {"torch", "transformers"} & {
        re.split(r"[<>=\[]", package)[0] for extra in chosen for package in extras[extra]
    }
    assert not {"export", "miniature", "all"} & set(chosen)
    words = instructions(name)
    assert [line for line in words if line[0] == "USER"] == [["USER", "sottovoce"]]
    entry = next(line for line in words if line[0] == "ENTRYPOINT")
    start = next(line for line in words if line[0] == "CMD")
    assert entry[1] == '["sottovoce"]'
    assert start[1].strip('[]"') in COMMANDS


@pytest.mark.parametrize("path", sorted(DEVICE.iterdir()), ids=lambda path: path.name)
def test_nothing_private_is_in_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert SECRET.search(text) is None
    assert ADDRESS.search(text) is None
