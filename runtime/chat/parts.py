"""What a spoken conversation is made of: devices, the model, and those who watch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.chat.transcript import TurnRecord
from sottovoce.runtime.chat.worker import ConversationWorker
from sottovoce.runtime.devices.interface import CaptureDevice, PlaybackDevice
from sottovoce.runtime.duplex.actions import Action
from sottovoce.runtime.duplex.events import Event
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.reply import ReplyEvent

Samples = npt.NDArray[np.float32]


class Witness(Protocol):
    """Who keeps what happens (a recording); nothing is kept unless there is one."""

    def captured(self, samples: Samples, start: int) -> None:
        """Samples of the capture stream."""

    def handled(self, event: Event, actions: tuple[Action, ...]) -> None:
        """An event and what it led to."""

    def picture(self, name: str, file: Path) -> None:
        """A picture was shown."""

    def replied(self, epoch: int, event: ReplyEvent) -> None:
        """What the conversation gave."""


class Audience(Protocol):
    """Who is shown what happens."""

    def turn_ended(self, turn: TurnRecord) -> None:
        """The user has finished: a reply is asked for."""

    def said(self, turn: TurnRecord, text: str) -> None:
        """More of the reply's text."""

    def reply_over(self, turn: TurnRecord) -> None:
        """The reply was given, or ended."""

    def trouble(self, error: SottovoceError) -> None:
        """Something failed; the conversation goes on."""

    def notice(self, text: str) -> None:
        """Something a person should know."""


@dataclass(frozen=True)
class Parts:
    """What a session is made of; without a microphone it is typed, without a speaker read."""

    worker: ConversationWorker
    microphone: CaptureDevice | None
    speaker: PlaybackDevice | None
    audience: Audience
    clock: Callable[[], float]
    sample_rate: int
    settings: DuplexSettings
    witness: Witness | None = None
