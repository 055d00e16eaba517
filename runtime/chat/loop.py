"""Drives a session until it is over: keys, pictures of the camera, the status line, and the clock."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.chat.camera import Camera
from sottovoce.runtime.chat.keyboard import Keyboard
from sottovoce.runtime.chat.parts import Parts
from sottovoce.runtime.chat.screen import Screen, Status
from sottovoce.runtime.chat.session import ENDING_SECONDS, ChatSession
from sottovoce.runtime.chat.stopping import StopWish
from sottovoce.runtime.devices.wav_devices import SteppedClock, WavMicrophone
from sottovoce.runtime.duplex.events import InterruptKey, Quit, TypedLine

STEP_SECONDS = 0.01
STATUS_SECONDS = 0.1
LOOK_SECONDS = 0.05
"""How often somebody who wants to stop is looked for while a reply is computed and the clock stands still."""
KEPT_CAMERA_PICTURES = 8
"""Older ones were seen long ago; a conversation may last for days."""
HELP = "a line is asked; /image FILE shows a picture, /stop ends the reply, /quit ends the conversation"


@dataclass(frozen=True)
class People:
    """Where lines come from and where everything is shown."""

    keyboard: Keyboard
    screen: Screen
    stop: StopWish
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
        self._quits_until: float | None = None
        self._frames = 0

    def run(self) -> None:
        """Until somebody quits, or nothing more can come; Ctrl-C ends it in order."""
        while not self._session.closed and not self._is_overdue():
            self._turn_over()
        self._session.end()

    def _turn_over(self) -> None:
        self._session.step()
        self._type()
        self._look()
        self._show_status()
        if self._people.stop.is_wanted or self._is_over():
            self._quit()
        clock = self._parts.clock
        if isinstance(clock, SteppedClock):
            # A file is heard as fast as it can be answered; its clock stands still while that is computed.
            while not self._parts.worker.wait(LOOK_SECONDS) and not self._is_stopping():
                pass
            clock.advance(STEP_SECONDS)
        else:
            time.sleep(STEP_SECONDS)

    def _is_stopping(self) -> bool:
        """Whether somebody wants to stop who was not told so yet."""
        return self._people.stop.is_wanted and self._quits_until is None

    def _is_overdue(self) -> bool:
        """Whether the end is waited for in vain."""
        return self._quits_until is not None and time.monotonic() > self._quits_until

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
                for file in map(Path, _names(rest)):
                    if file.is_file():
                        self._session.show(file)
                    else:
                        self._people.screen.notice(f"there is no picture {str(file)!r}")
            case _ if word.startswith("/"):
                self._people.screen.notice(HELP)
            case _:
                if self._session.duplex.view.turn_start is None:  # else the turn that is spoken has its picture
                    self._show_camera()
                self._session.tell(TypedLine(self._session.now, line))

    def _look(self) -> None:
        """With each turn goes what the camera sees when it begins."""
        begins = self._session.duplex.view.turn_start is not None
        if begins and not self._looked:
            self._show_camera()
        self._looked = begins

    def _show_camera(self) -> None:
        camera, folder = self._people.camera, self._people.pictures
        if camera is None or folder is None:
            return
        self._frames += 1
        file = folder / f"{self._frames}.png"
        camera.picture().save(file, compress_level=1)
        (folder / f"{self._frames - KEPT_CAMERA_PICTURES}.png").unlink(missing_ok=True)
        self._session.show(file, from_camera=True)

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
        microphone, keyboard = self._parts.microphone, self._people.keyboard
        silent = microphone is None or microphone.ended
        if not isinstance(microphone, WavMicrophone):  # at a recording's end it is over, typing or not
            silent = silent and keyboard.ended
        return silent and self._session.duplex.state == "idle"

    def _quit(self) -> None:
        if self._quits_until is None:
            self._quits_until = time.monotonic() + ENDING_SECONDS
            self._session.tell(Quit(self._session.now))


def _names(text: str) -> list[str]:
    """File names as a shell has them: quoted, if there is a space in one."""
    try:
        return shlex.split(text) or [""]
    except ValueError:  # a single quotation mark, as in a name like "cat's.png"
        return [text]
