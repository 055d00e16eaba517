"""A recorded conversation with everything in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from held_session import HeldSession, about, small_model
from PIL import Image

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.model import Model
from sottovoce.runtime.recording.recorder import Recorder


@pytest.fixture(scope="session")
def model(tiny_bundle: Path) -> Iterator[Model]:
    ready = small_model(tiny_bundle)
    yield ready
    ready.close()


@pytest.fixture(scope="session")
def voice(golden_dir: Path) -> np.ndarray:
    return soundfile.read(golden_dir / "speech.wav", dtype="float32")[0]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "shown.png")
    return tmp_path / "shown.png"


@dataclass
class Recorded:
    """What a script left behind."""

    folder: Path
    session: HeldSession
    model: Model


Record = Callable[..., Recorded]


@pytest.fixture
def record(model: Model, voice: np.ndarray, tmp_path: Path) -> Record:
    """Records what a script does: `record(script, greedy=True, …)`."""

    def recorded(script: Callable[[HeldSession], None], by: Model | None = None, **options: object) -> Recorded:
        by = by or model
        conversation = Assistant(by).conversation("You are a helpful assistant.", max_new_tokens=10, **options)
        folder = tmp_path / "recording"
        with Recorder(folder, about(conversation, by)) as recorder:
            session = HeldSession(conversation, recorder, voice)
            script(session)
        assert recorder.stopped is None
        return Recorded(folder, session, by)

    return recorded


@pytest.fixture
def everything(picture: Path) -> Callable[[HeldSession], None]:
    """Pauses that were none, typed lines, a picture, interruptions before, in and after a reply, a lost microphone."""

    def script(session: HeldSession) -> None:
        session.pause(5)
        session.say(14)
        session.pause(6)  # the reply is prepared, in vain
        session.show("red", picture)
        session.say(4)
        session.pause(16)
        session.give()
        session.play()
        session.type("Hello.")
        session.give_first_sound()
        session.play(700)
        session.say(20)  # over the reply, which is cut
        session.pause(16)
        session.give()
        session.play(1000)
        session.press_key()  # after it was computed, while it is played
        session.say(8)
        session.press_key()  # what was heard is nobody's
        session.type("What?")
        session.press_key()  # before anything of it is there
        session.pause(2)
        session.say(8)
        session.pause(16)
        session.give(2)
        session.quit()

    return script
