"""`sottovoce replay`: a recorded conversation once more, turn taking and replies, against what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import check_backend
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.commands.options import FILE, backend_choice, common
from sottovoce.runtime.console import Console
from sottovoce.runtime.model import Model
from sottovoce.runtime.recording.comparing import TIMINGS, ReplyComparison, compare
from sottovoce.runtime.recording.conversation_replay import ConversationReplay
from sottovoce.runtime.recording.reading import Recording
from sottovoce.runtime.recording.session import RecordedSession, installed_versions
from sottovoce.runtime.recording.turn_taking import TurnTaking, replay_turn_taking

NOT_REPEATABLE = "recorded without --greedy or --seed: replies are drawn anew each time, turn taking alone is compared"
SHOWN_CHARACTERS = 100


@click.command("replay")
@click.argument("recording", type=FILE, metavar="DIR")
@click.option("--bundle", type=FILE, metavar="BUNDLE", help="Hold the conversation again with this bundle.")
@click.option("--threads", type=click.IntRange(1), help="CPU cores to use; default: as many as then.")
@click.option(
    "--expect-same",
    is_flag=True,
    help="Exit code 1 for different replies even with another bundle, backend or --threads.",
)
@backend_choice
@common
def replay_command(  # noqa: PLR0913  # each flag by its name
    recording: Path,
    bundle: Path | None,
    threads: int | None,
    expect_same: bool,
    backend: str,
    require_engine: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Hold the conversation in DIR, which `chat --record DIR` wrote, once more.

    What happened then is told to turn taking again, which must want the same. With --bundle the conversation is held
    again, without devices and as fast as it can be: what the microphone heard, pauses, typed lines, pictures and
    interruptions come at the same points, and every reply is compared to the token and to the bit of every sample.
    That needs a recording made with --greedy or --seed; without, turn taking alone is compared.

    Exit code 0: all is the same. 1: turn taking differs, or replies do, or the recording is damaged. Replies of another
    bundle, backend or number of threads than then are shown but expected to differ: they count with --expect-same only.
    """
    del debug
    if bundle is None and require_engine:
        raise click.UsageError("--require-engine is about a bundle's engines; give --bundle BUNDLE, too")
    replay = _Replay(Recording.open(recording), Console(as_json))
    if bundle is not None:
        replay.hold(bundle, backend, require_engine, threads)
    return replay.finish(expect_same)


class _Replay:
    """One recording: turn taking, replies if there is a bundle, the verdict."""

    def __init__(self, recording: Recording, console: Console) -> None:
        self._recording, self._console = recording, console
        self._replies: list[ReplyComparison] | None = None
        self._remarks = list(recording.remarks)
        self._is_other = False
        self._turns = replay_turn_taking(recording)
        recording.check_sounds()

    def hold(self, path: Path, backend: str, require_engine: bool, threads: int | None) -> None:
        """Hold the conversation with a bundle."""
        session = self._recording.session
        if not session.conversation.is_repeatable:
            self._remarks.append(NOT_REPEATABLE)
            return
        check_backend(backend, require_engine=require_engine)
        with self._console.progress() as progress:
            bundle = Bundle.open(path, progress=progress)
            name = check_backend(backend, bundle, require_engine)
            threads = threads or session.threads
            others = list(_others(session, bundle, name, threads))
            self._is_other = bool(others)
            self._remarks += [*others, *_version_remarks(session)]
            wanted = len(self._recording.replies)
            self._replies = []
            model = Model(bundle, name, threads, require_engine=require_engine)
            with Assistant(model) as assistant:
                assistant.load(speech=session.conversation.speech)  # as `chat` does: the first reply's time is its own
                replay = ConversationReplay(self._recording, model)
                for held in replay.replies():
                    self._replies.append(compare(self._recording, held))
                    progress.step("replies", len(self._replies), max(wanted, len(self._replies)))
        self._remarks += replay.troubles

    def finish(self, expect_same: bool) -> int:
        """Show what was found; the exit code."""
        console, turns = self._console, self._turns
        for remark in self._remarks:
            console.warn(remark)
        if turns.difference is None:
            console.say(f"turn taking is the same: {turns.events:,} events, {turns.actions:,} actions", style="green")
        else:
            console.say(f"turn taking differs: {turns.difference}", style="bold red")
        same_replies = self._show_replies()
        counts = not self._is_other or expect_same
        same = turns.difference is None and same_replies is not False
        console.result(self._result(turns, same_replies, same))
        return 1 if turns.difference is not None or (counts and same_replies is False) else 0

    def _show_replies(self) -> bool | None:
        """The table; whether all replies are the same, None if none was compared."""
        console, replies = self._console, self._replies
        if replies is None:
            if self._recording.session.conversation.is_repeatable:
                console.say("replies were not compared: give --bundle BUNDLE to hold the conversation again")
            return None
        columns = ["reply", "question", "", "token", "sample", *(name.replace("_", " ") for name in TIMINGS)]
        console.table("", columns, [_row(reply) for reply in replies], [0, 3, 4, 5, 6, 7])
        missing = self._recording.replies.keys() - {reply.now.epoch for reply in replies}
        for epoch in sorted(missing):
            console.warn(f"reply {epoch} is in the recording, but nothing asked for it")
        different = [reply for reply in replies if reply.differs]
        for reply in different:
            _show_difference(console, reply)
        compared = sum(reply.then is not None for reply in replies)
        if different or missing:
            count = f"{len(different) + len(missing)} of {compared + len(missing)}"
            console.say(f"{count} replies differ", style="bold red")
        elif compared:
            console.say(f"all {compared} replies are the same, to the bit", style="green")
        return not different and not missing if compared or missing else None

    def _result(self, turns: TurnTaking, same_replies: bool | None, same: bool) -> dict[str, Any]:
        session, difference = self._recording.session, turns.difference
        return {
            "same": same,
            "turn_taking": {
                "same": difference is None,
                "events": turns.events,
                "actions": turns.actions,
                "first_difference": difference.as_json() if difference is not None else None,
            },
            "replies_same": same_replies,
            "replies": [reply.as_json() for reply in self._replies] if self._replies is not None else None,
            "same_conditions": not self._is_other if self._replies is not None else None,
            "recorded": {
                "created": session.created,
                "bundle": session.bundle.name,
                "bundle_sha256": session.bundle.sha256,
                "backend": session.backend,
                "threads": session.threads,
            },
            "remarks": self._remarks,
        }


def _others(session: RecordedSession, bundle: Bundle, backend: str, threads: int) -> Sequence[str]:
    """What is not as it was then, so that other replies are to be expected."""
    others = []
    if bundle.sha256 != session.bundle.sha256:
        then, now = session.bundle, bundle.sha256
        others.append(f"recorded with another bundle: {then.name} ({then.sha256[:12]}…), now {now[:12]}…")
    if backend != session.backend:
        others.append(f"recorded with another backend: {session.backend}, now {backend}")
    if threads != session.threads:
        others.append(f"recorded with {session.threads} threads, now {threads}: sums are rounded otherwise")
    return others


def _version_remarks(session: RecordedSession) -> Sequence[str]:
    now = installed_versions()
    changed = [name for name in ("onnxruntime", "numpy") if session.versions.get(name) != now.get(name)]
    return [f"recorded with {name} {session.versions.get(name)}, now {now.get(name)}" for name in changed]


def _row(reply: ReplyComparison) -> list[str]:
    if reply.then is None:
        verdict = "not recorded to its end"
    else:
        verdict = f"differs: {', '.join(reply.differs)}" if reply.differs else "same"
    places = ["" if place is None else f"{place:,}" for place in (reply.first_token, reply.first_sample)]
    ratios = [f"x{reply.ratios[name]:.2f}" if name in reply.ratios else "" for name in TIMINGS]
    return [str(reply.now.epoch), reply.asked, verdict, *places, *ratios]


def _show_difference(console: Console, reply: ReplyComparison) -> None:
    for when, one in (("then", reply.then), ("now", reply.now)):
        if one is not None:
            text = one.text if len(one.text) <= SHOWN_CHARACTERS else one.text[:SHOWN_CHARACTERS] + "…"
            said = f"{one.state or ''}{text.strip()}" or "(nothing)"
            console.say(f"reply {one.epoch} {when:4}  {said}  [{one.reason}]")
    if reply.error is not None:
        console.warn(f"reply {reply.now.epoch} failed now: {reply.error}")
