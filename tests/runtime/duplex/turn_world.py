"""A world for `Duplex`: a microphone, a speaker, a model and a user who do anything, and a witness of what must hold.

The world carries out every action and refuses those that break a promise of actions.py. Every event and action goes
through JSON, and a second machine that is fed with what was read back must want the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from sottovoce.runtime.duplex.actions import (
    Action,
    Ask,
    CancelReply,
    Close,
    Discard,
    Duck,
    EndOfSpeech,
    Hear,
    Play,
    Prepare,
    ReplyOver,
    StopPlayback,
    Unduck,
    Withdraw,
)
from sottovoce.runtime.duplex.events import (
    WINDOW_SAMPLES,
    DeviceLost,
    DeviceReturned,
    Event,
    InterruptKey,
    Picture,
    PlaybackStopped,
    Played,
    Quit,
    ReplyAudio,
    ReplyFinished,
    ReplyStarted,
    Tick,
    TypedLine,
    VoiceWindow,
)
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.serialization import read_action, read_event, write_action, write_event
from sottovoce.runtime.duplex.settings import DuplexSettings, samples

WINDOW_SECONDS = 0.032


@dataclass
class SpokenReply:
    """What the model and the speaker know of a reply."""

    pictures: tuple[str, ...]
    is_prepared: bool
    made: int = 0
    given: int = 0
    played: int = 0
    reported: int = 0
    finished: str | None = None
    stop_wanted: bool = False
    stop_answered: bool = False
    left: str | None = None  # the action that ended it
    is_ducked: bool = False


@dataclass
class World:
    """Everything around a machine. Its methods are what may happen at any time."""

    settings: DuplexSettings = field(default_factory=DuplexSettings)

    def __post_init__(self) -> None:
        self.duplex, self.twin = Duplex(self.settings), Duplex(self.settings)
        self.now = 0.0
        self.position = 0
        self.has_microphone = self.has_speaker = True
        self.replies: dict[int, SpokenReply] = {}
        self.segment = 0
        # End, probability, and the uninterrupted piece of capture it is in; None while the machine is deaf.
        self.windows: list[tuple[int, float, int | None]] = []
        self.heard: list[tuple[int, int]] = []
        self.turn: list[int] | None = None  # start and end of what was handed over since the last end of a turn
        self.discarded: list[Discard] = []
        self.lines: list[str] = []
        self.asked: list[str] = []
        self.shown: list[str] = []
        self.quitting = self.closed = False

    # What may happen.

    def window(self, probability: float) -> None:
        self.now += WINDOW_SECONDS
        if not self.has_microphone:
            self.give(Tick(self.now))
            return
        self.position += WINDOW_SAMPLES
        is_deaf = self.duplex.view.is_deaf or self.quitting
        self.windows.append((self.position, probability, None if is_deaf else self.segment))
        self.give(VoiceWindow(self.now, self.position, probability))

    def reply_starts(self, epoch: int) -> None:
        self.give(ReplyStarted(self.now, epoch))

    def make_audio(self, epoch: int, count: int) -> None:
        if self.replies[epoch].finished is None:
            self.replies[epoch].made += count
            self.give(ReplyAudio(self.now, epoch, count))

    def finish(self, epoch: int, reason: str) -> None:
        if self.replies[epoch].finished is None:
            self.replies[epoch].finished = reason
            self.give(ReplyFinished(self.now, epoch, reason))  # type: ignore[arg-type]

    def play(self, epoch: int, count: int, *, reports: bool = True) -> None:
        """The speaker plays on, and may or may not tell."""
        reply = self.replies[epoch]
        if not self.has_speaker or reply.stop_answered:
            return
        reply.played = min(reply.given, reply.played + count)
        if reports:
            reply.reported = reply.played
            self.give(Played(self.now, epoch, reply.played))

    def answer_stop(self, epoch: int) -> None:
        reply = self.replies[epoch]
        if self.has_speaker and reply.stop_wanted and not reply.stop_answered:
            reply.stop_answered, reply.reported = True, reply.played
            self.give(PlaybackStopped(self.now, epoch, reply.played))

    def line(self, text: str) -> None:
        if text.strip() and not self.closed and not self.quitting:
            self.lines.append(text)
            self.segment += 1  # a turn is cut here, and what is left may be too short for another
        self.give(TypedLine(self.now, text))

    def picture(self, name: str) -> None:
        if not self.closed and not self.quitting:
            self.shown.append(name)
        self.give(Picture(self.now, name))

    def key(self) -> None:
        waiting = len(self.duplex.view.waiting_lines)
        self.lines = self.lines[: len(self.lines) - waiting]
        self.segment += 1
        self.give(InterruptKey(self.now))

    def quit(self) -> None:
        waiting = len(self.duplex.view.waiting_lines)
        self.lines = self.lines[: len(self.lines) - waiting]
        self.quitting = True
        self.give(Quit(self.now))

    def lose(self, device: str) -> None:
        if device == "microphone":
            self.has_microphone = False
            self.segment += 1
        else:
            self.has_speaker = False
        self.give(DeviceLost(self.now, device))  # type: ignore[arg-type]

    def regain(self, device: str, gap: int = 0) -> None:
        if device == "microphone":
            self.position += 0 if self.has_microphone else gap
            self.has_microphone = True
        else:
            self.has_speaker = True
        self.give(DeviceReturned(self.now, device))  # type: ignore[arg-type]

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.give(Tick(self.now))

    def settle(self) -> None:
        """Everybody becomes quiet; after a bounded time nothing may be going on any more."""
        self.regain("microphone")
        self.regain("speaker")
        expected = "closed" if self.quitting else "idle"
        rounds = 0
        bound = 4 + 2 * len(self.duplex.view.waiting_lines)
        while rounds < 2 or (self.duplex.state != expected and rounds < bound):
            rounds += 1
            for epoch, reply in list(self.replies.items()):
                self.finish(epoch, "cancelled" if reply.left else "stop")
                self.play(epoch, 1 << 30)
                self.answer_stop(epoch)
            for _ in range(20):
                self.window(0.0)
        assert self.duplex.state == expected, f"{self.duplex.view} after everybody was quiet"
        self.check_nothing_lost()

    # What must hold.

    def give(self, event: Event) -> None:
        buffered_from = self.duplex.needed_from
        actions = self.duplex.handle(event)
        copy = read_event(json.loads(json.dumps(write_event(event))), source="events.jsonl")
        assert copy == event
        assert self.twin.handle(copy) == actions, "the same events, other actions"
        assert not (self.closed and actions), "something after the end"
        for action in actions:
            assert read_action(json.loads(json.dumps(write_action(action))), source="actions.jsonl") == action
            self.carry_out(action, buffered_from)
        assert self.duplex.needed_from >= buffered_from, "an older sample is needed than was before"

    def carry_out(self, action: Action, buffered_from: int) -> None:
        match action:
            case Hear(start, end):
                self.hear(start, end, buffered_from)
            case Prepare(epoch, pictures):
                self.begin(epoch, pictures, is_prepared=True)
            case EndOfSpeech():
                self.end_speech(action)
            case Ask(epoch, text, pictures):
                self.begin(epoch, pictures, is_prepared=False)
                assert self.turn is None, "a line is asked in the middle of a turn that was heard"
                self.asked.append(text)
            case Withdraw(epoch):
                assert self.current(epoch).is_prepared
                self.replies[epoch].left = "withdrawn"
            case Play(epoch, start, end):
                self.check_play(self.current(epoch), start, end)
            case StopPlayback(epoch):
                reply = self.current(epoch)
                assert reply.given > 0
                assert not reply.stop_wanted
                reply.stop_wanted = True
            case CancelReply(epoch, played):
                self.check_cancel(epoch, played)
            case Duck(epoch) | Unduck(epoch):
                reply = self.current(epoch)
                assert reply.given > 0
                assert reply.is_ducked == isinstance(action, Unduck)
                reply.is_ducked = not reply.is_ducked
            case ReplyOver(epoch, reason, played):
                reply = self.current(epoch)
                assert (reply.finished, reply.reported) == (reason, played)
                assert played in (reply.made, 0)
                reply.left = "over"
            case Discard():
                self.discard(action)
            case Close():
                self.closed = True

    def current(self, epoch: int) -> SpokenReply:
        """The one reply that may be spoken of."""
        assert epoch == max(self.replies), f"reply {epoch} after {max(self.replies)}"
        assert self.replies[epoch].left is None, f"reply {epoch} was {self.replies[epoch].left}"
        return self.replies[epoch]

    def begin(self, epoch: int, pictures: tuple[str, ...], *, is_prepared: bool) -> None:
        for earlier, reply in self.replies.items():
            assert earlier < epoch
            assert reply.left is not None, f"two replies at once: {earlier} and {epoch}"
            assert reply.finished is not None, f"reply {epoch} while {earlier} is still being computed"
        assert not self.closed
        self.replies[epoch] = SpokenReply(pictures, is_prepared)

    def end_speech(self, action: EndOfSpeech) -> None:
        assert self.turn == [action.start, action.end], f"{action}, but {self.turn} was handed over"
        assert action.end - action.start <= samples(self.settings.max_turn_ms)
        self.turn = None
        if action.epoch in self.replies:
            reply = self.current(action.epoch)
            assert reply.is_prepared
            assert reply.pictures == action.pictures
            reply.is_prepared = False
        else:
            self.begin(action.epoch, action.pictures, is_prepared=False)

    def hear(self, start: int, end: int, buffered_from: int) -> None:
        assert start < end <= self.position
        assert start >= buffered_from, f"sample {start} was not needed any more from {buffered_from} on"
        assert not self.heard or start >= self.heard[-1][1], "handed over twice"
        if self.turn is None:
            self.turn = [start, end]
        else:
            assert self.turn[1] == start, "a gap within a turn"
            self.turn[1] = end
        given = [epoch for epoch, reply in self.replies.items() if reply.left is None and not reply.is_prepared]
        assert given == [], "a turn is heard while a reply is given"
        self.heard.append((start, end))

    def check_play(self, reply: SpokenReply, start: int, end: int) -> None:
        assert not reply.is_prepared, "a prepared reply is heard"
        assert not reply.stop_wanted, "a stopped reply goes on"
        assert reply.given == start < end <= reply.made
        reply.given = end

    def check_cancel(self, epoch: int, played: int | None) -> None:
        reply = self.current(epoch)
        assert not reply.is_prepared
        if played is not None:
            assert played == reply.reported
            if reply.stop_answered or not reply.given:
                assert played == reply.played, "not what was really played"
        reply.left = "cancelled"

    def discard(self, action: Discard) -> None:
        assert action.start <= action.end <= self.position
        is_wanted = action.reason in ("interrupt_key", "quit")
        if is_wanted:
            self.turn = None
        else:
            assert not self.heard or action.start >= self.heard[-1][1], "what was handed over is discarded"
        self.discarded.append(action)

    def check_nothing_lost(self) -> None:
        """All long speech was handed over or said to be discarded; all lines and pictures arrived once."""
        assert self.asked == self.lines
        kept = [r.pictures for r in self.replies.values() if r.left != "withdrawn" and r.finished != "not_addressed"]
        pictures = [*self.duplex.view.pictures, *(name for names in kept for name in names)]
        assert self.closed or sorted(pictures) == sorted(self.shown)
        known = sorted([*self.heard, *((part.start, part.end) for part in self.discarded)])
        for start, end in self.long_speech():
            reached = start
            for low, high in known:
                if low <= reached:
                    reached = max(reached, high)
            assert reached >= end, f"speech from {start} to {end} is lost from {reached} on"

    def long_speech(self) -> list[tuple[int, int]]:
        """Runs of voiced windows that are a turn in any state, not cut by something else than speech."""
        runs: list[tuple[int, int]] = []
        last_segment = None
        for end, probability, segment in self.windows:
            if segment is None or probability < self.settings.threshold:
                last_segment = None
            elif segment == last_segment:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((end - WINDOW_SAMPLES, end))
                last_segment = segment
        return [(low, high) for low, high in runs if high - low >= samples(self.settings.interruption_ms)]
