"""A clip in a camera's place."""

from __future__ import annotations

import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from sottovoce.runtime.chat.camera import Camera
from sottovoce.runtime.errors import InputError

av = pytest.importorskip("av", reason="pip install 'sottovoce[video]'")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of red, half a second of blue."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[..., 0 if number < 5 else 2] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def colors(camera: Camera) -> np.ndarray:
    return np.asarray(camera.picture()).reshape(-1, 3).mean(axis=0)


def test_it_shows_what_is_to_be_seen_now_and_then_the_last(clip):
    before = set(threading.enumerate())
    with Camera(str(clip)) as camera:
        assert camera.picture().size == (64, 48)
        red, _, blue = colors(camera)
        assert red > 200
        assert blue < 50
        time.sleep(1.2)
        red, _, blue = colors(camera)
        assert blue > 200
        assert red < 50
    camera.close()
    assert set(threading.enumerate()) == before


def test_closing_does_not_wait_for_the_end_of_the_clip(clip):
    began = time.monotonic()
    with Camera(str(clip)):
        pass
    assert time.monotonic() - began < 0.8


def test_what_is_no_camera_is_refused(tmp_path):
    before = set(threading.enumerate())
    (tmp_path / "text.mp4").write_text("not a clip")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(3200))
    for source, reason in ((tmp_path / "text.mp4", "cannot be opened"), (tmp_path / "sound.wav", "only sound"),
                           ("/dev/no-such-camera", "cannot be opened")):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            Camera(str(source))
    assert set(threading.enumerate()) == before
