"""Drives a session until it is over: keys, pictures of the camera, the status line, and the clock."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.chat.camera import Camera
from sottovoce.runtime.chat.keyboard import Keyboard
from sottovoce.runtime.chat.screen import Screen, Status
from sottovoce.runtime.chat.session import ChatSession, Parts
from sottovoce.runtime.devices.wav_devices import SteppedClock
from sottovoce.runtime.duplex.events import InterruptKey, Quit, TypedLine

STEP_SECONDS = 0.01
STATUS_SECONDS = 0.1
HELP = "a line is asked; /image FILE shows a picture, /stop ends the reply, /quit ends the conversation"


@dataclass(frozen=True)
class People:
    """Where lines come from and where everything is shown."""

    keyboard: Keyboard
    screen: Screen
    camera: Camera | None = None
    pictures: Path | None = None
    """A folder for the camera's pictures."""


class ChatLoop:
    """A session and the people around it.

    Args:
        session: the conversation.
        parts: what it is made of.
        people: who types and watches.
    """

    def __init__(self, session: ChatSession, parts: Parts, people: People) -> None:
        self._session, self._parts, self._people = session, parts, people
        self._next_status = 0.0
        self._looked = False
        self._quits = False
        self._frames = 0

    def run(self) -> None:
        """Until somebody quits, or nothing more can come; Ctrl-C ends it in order."""
        try:
            while not self._session.closed:
                self._turn_over()
        except KeyboardInterrupt:
            self._quit()
            for _ in range(500):
                if self._session.closed:
                    break
                self._turn_over()

    def _turn_over(self) -> None:
        self._session.step()
        self._type()
        self._look()
        self._show_status()
        if self._is_over():
            self._quit()
        clock = self._parts.clock
        if isinstance(clock, SteppedClock):
            # A file is heard as fast as it can be answered; its clock stands still while that is computed.
            self._parts.worker.wait()
            clock.advance(STEP_SECONDS)
        else:
            time.sleep(STEP_SECONDS)

    def _type(self) -> None:
        for entered in self._people.keyboard.read():
            match entered:
                case ("interrupt",):
                    self._session.tell(InterruptKey(self._session.now))
                case ("quit",):
                    self._quit()
                case str() as line:
                    self._obey(line.strip())

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "/quit" | "/exit":
                self._quit()
            case "/stop":
                self._session.tell(InterruptKey(self._session.now))
            case "/image":
                names = shlex.split(rest) or [""]
                for file in map(Path, names):
                    if file.is_file():
                        self._session.show(file)
                    else:
                        self._people.screen.notice(f"there is no picture {str(file)!r}")
            case _ if word.startswith("/"):
                self._people.screen.notice(HELP)
            case _:
                self._session.tell(TypedLine(self._session.now, line))

    def _look(self) -> None:
        """With each turn goes what the camera sees when it begins."""
        camera, folder = self._people.camera, self._people.pictures
        begins = self._session.duplex.view.turn_start is not None
        if camera is not None and folder is not None and begins and not self._looked:
            self._frames += 1
            file = folder / f"camera-{self._frames}.png"
            camera.picture().save(file)
            self._session.show(file)
        self._looked = begins

    def _show_status(self) -> None:
        now = time.monotonic()
        if now < self._next_status:
            return
        self._next_status = now + STATUS_SECONDS
        view, parts = self._session.duplex.view, self._parts
        microphone = parts.microphone.levels if parts.microphone is not None else None
        speaker = parts.speaker.levels if parts.speaker is not None and view.state == "speaking" else None
        self._people.screen.status(Status(view.state, microphone, speaker, self._people.keyboard.line, view.is_ducked))

    def _is_over(self) -> bool:
        """Nothing more can be said, and all was answered."""
        microphone = self._parts.microphone
        silent = microphone.ended if microphone is not None else self._people.keyboard.ended
        return silent and self._session.duplex.state == "idle"

    def _quit(self) -> None:
        if not self._quits:
            self._quits = True
            self._session.tell(Quit(self._session.now))
