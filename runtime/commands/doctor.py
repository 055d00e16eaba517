"""`sottovoce doctor`: what this machine has to run bundles with, and what to install."""

from __future__ import annotations

import click

from sottovoce.runtime.commands.options import common
from sottovoce.runtime.console import Console
from sottovoce.runtime.doctor.examine import examine
from sottovoce.runtime.doctor.findings import Diagnosis

NOTHING_RUNS = 1


@click.command("doctor")
@common
def doctor_command(as_json: bool, debug: bool) -> int:
    """Look at driver, GPU, libraries, memory and audio: what works here, and what to install for what does not.

    Exit code 1 only where nothing here can run a bundle.
    """
    del debug
    console = Console(as_json)
    diagnosis = examine()
    show_diagnosis(console, diagnosis)
    console.result(diagnosis.as_json())
    return 0 if diagnosis.can_run else NOTHING_RUNS


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """One aligned table, then what to do, then the verdict."""
    sections = {**diagnosis.findings, "backends": diagnosis.backends}
    rows = []
    for section, findings in sections.items():
        for number, finding in enumerate(findings):
            rows.append([section if number == 0 else "", finding.name, finding.state, finding.found])
    console.table("", ["", "", "", "found"], rows)
    fixes = [[f.name, f.fix] for findings in sections.values() for f in findings if f.state != "ok" and f.fix]
    if fixes:
        console.table("\nto have what is missing", ["", ""], fixes)
    works = ", ".join(diagnosis.working)
    console.say(f"\nbundles run here with --backend {works}" if works else "\nnothing here can run a bundle")
