"""`sottovoce profile` as it is typed: what it writes, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sottovoce.runtime.cli import main
from sottovoce.runtime.profiling import ceilings

QUICK = ["--text", "hello", "--runs", "5", "--warm-up", "0", "--no-speech", "--context", "16", "--threads", "1",
         "--max-new-tokens", "3"]  # fmt: skip


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "LEAST_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "LEAST_SECONDS", 0.0)


@pytest.fixture(scope="module")
def reports(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `-o` wrote."""
    folder = tmp_path_factory.mktemp("profile") / "reports"
    assert main(["profile", str(tiny_bundle), *QUICK, "-o", str(folder)]) == 0
    return folder


def refused(arguments: list[str], capsys: Any, *words: str, code: int = 1) -> None:
    assert main([*arguments, "--json"]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    error = json.loads(printed.out.splitlines()[-1])["error"]
    for word in words:
        assert word in f"{error['file']} {error['message']} {error['fix']}", error


def edited(reports: Path, to: Path, **sections: dict[str, Any]) -> str:
    """A report beside the first one, with some values changed."""
    value = json.loads((reports / "profile.json").read_text())
    for section, changes in sections.items():
        value[section].update(changes)
    to.write_text(json.dumps(value))
    return str(to)


def steady(reports: Path, to: Path, milliseconds: float) -> str:
    """A report of runs that nothing disturbed, whatever else this machine does during the tests."""
    value = json.loads((reports / "profile.json").read_text())
    for one in value["measures"]:
        one["runs"] = [[milliseconds * (1 + run / 100)] for run in range(6)]
    to.write_text(json.dumps(value))
    return str(to)


def test_a_folder_holds_report_page_and_trace(reports: Path) -> None:
    assert sorted(path.name for path in reports.iterdir()) == ["profile.html", "profile.json", "profile.trace.json"]
    report = json.loads((reports / "profile.json").read_text())
    assert report["setup"]["runs"] == 5
    assert report["reply"]["tokens"] == 3
    assert (reports / "profile.html").read_text().startswith("<!doctype html>")
    assert json.loads((reports / "profile.trace.json").read_text())["traceEvents"]


def test_json_is_one_object_and_tables_are_for_people(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    page, trace = tmp_path / "p.html", tmp_path / "t.json"
    arguments = ["profile", str(tiny_bundle), *QUICK, "--no-layers", "--stage", "language_model"]
    assert main([*arguments, "--json", "--html", str(page), "--trace", str(trace)]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["report"] == "sottovoce profile"
    assert report["layers"] == []
    assert {one["name"].partition(".")[0].partition(" ")[0] for one in report["measures"]} == {
        "prefill", "decode", "language_model"
    }  # fmt: skip
    assert "language model by context" in printed.err
    assert page.is_file()
    assert trace.is_file()


def test_a_report_against_itself_shows_no_difference(reports: Path, capsys: Any) -> None:
    assert main(["profile", "--compare", str(reports), str(reports / "profile.json"), "--fail-over", "10%"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no difference shown"


def test_a_slower_report_fails_above_what_is_allowed(reports: Path, tmp_path: Path, capsys: Any) -> None:
    fast, slow = steady(reports, tmp_path / "fast.json", 5.0), steady(reports, tmp_path / "slow.json", 6.0)
    compare = ["profile", "--compare", fast, slow]
    assert main(compare) == 0  # nobody asked for a verdict
    assert main([*compare, "--fail-over", "25%"]) == 0
    capsys.readouterr()
    assert main([*compare, "--fail-over", "10 %", "--json"]) == 1
    compared = json.loads(capsys.readouterr().out)
    assert "total" in compared["failed"]
    assert {one["verdict"] for one in compared["changes"]} == {"slower"}
    assert main(["profile", "--compare", slow, fast, "--fail-over", "10%"]) == 0


def test_two_machines_are_said_loudly_and_not_judged(reports: Path, tmp_path: Path, capsys: Any) -> None:
    other = edited(reports, tmp_path / "other.json", machine={"processor": "another one"})
    assert main(["profile", "--compare", str(reports), other]) == 0
    printed = capsys.readouterr()
    assert "TWO DIFFERENT MACHINES" in printed.err
    assert "another one" in printed.err
    assert "no verdict" in printed.out
    assert main(["profile", "--compare", str(reports), other, "--fail-over", "10%"]) == 1
    assert "no verdict" in capsys.readouterr().err


def test_reports_that_are_none(reports: Path, tmp_path: Path, capsys: Any) -> None:
    good = str(reports / "profile.json")
    foreign, unknown = tmp_path / "foreign.json", edited(reports, tmp_path / "u.json", machine={"colour": "red"})
    foreign.write_text('{"benchmark": 1}')
    refused(["profile", "--compare", good, str(foreign)], capsys, "foreign.json", "no profile")
    refused(["profile", "--compare", unknown, good], capsys, "u.json", "machine.colour")
    refused(["profile", "--compare", good, str(tmp_path / "none.json")], capsys, "none.json", "no such file")


def test_places_and_files_that_are_not_there(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    bundle = str(tiny_bundle)
    (tmp_path / "file").write_text("mine")
    for flag, place in (("--trace", "none/t.json"), ("--html", "file/p.html"), ("-o", "file"), ("-o", "none/reports")):
        refused(["profile", bundle, *QUICK, flag, str(tmp_path / place)], capsys, place.split("/", maxsplit=1)[0])
    refused(["profile", bundle, "--audio", str(tmp_path / "none.wav")], capsys, "none.wav")
    refused(["profile", str(tmp_path / "none.bundle")], capsys, "none.bundle", "no such folder")
    refused(["profile", bundle, "--backend", "abacus"], capsys, "abacus")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bundle_without_the_stage_that_is_asked_for(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    refused(["profile", str(tiny_bundle), "--stage", "ears"], capsys, "'ears'", "audio_encoder")
    refused(["profile", str(tiny_bundle), "--stage", "vision_encoder"], capsys, "vision_encoder", "--image")
    bundle = shutil.copytree(tiny_bundle, tmp_path / "copy.bundle")
    manifest = json.loads((bundle / "bundle.json").read_text())
    del manifest["graphs"]["codec"]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    refused(["profile", str(bundle), "--stage", "codec"], capsys, "bundle.json", "codec", "missing")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a bundle"),
        (["BUNDLE", "--runs", "0"], "--runs"),
        (["BUNDLE", "--warm-up", "-1"], "--warm-up"),
        (["BUNDLE", "--fail-over", "10%"], "--compare"),
        (["--compare", "a.json", "b.json", "--fail-over", "0.1"], "10%"),
        (["--compare", "a.json"], "--compare"),
        (["BUNDLE", "--compare", "a.json", "b.json"], "leave bundle away"),
        (["--compare", "a.json", "b.json", "--trace", "t.json"], "leave --trace away"),
    ],
)
def test_words_that_make_no_sense(tiny_bundle: Path, capsys: Any, arguments: list[str], words: str) -> None:
    given = [str(tiny_bundle) if argument == "BUNDLE" else argument for argument in arguments]
    refused(["profile", *given], capsys, words, code=2)
