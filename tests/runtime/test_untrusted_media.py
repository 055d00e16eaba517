"""Recordings, pictures and clips that lie, end early, or point elsewhere."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Waveform, WavWriter, read_audio, write_wav
from sottovoce.runtime.features.fbank import mel_filterbank
from sottovoce.runtime.features.images import pixels, read_image, tile_image
from sottovoce.runtime.features.video import read_video
from sottovoce.runtime.manifest import AudioFrontEnd, ImageFrontEnd, VideoFrontEnd

AUDIO = AudioFrontEnd(16000, 80, 25.0, 10.0, 32768.0, 7, 120.0, ((2, 2), (2, 2), (0, 2)), 0)
IMAGE = ImageFrontEnd(448, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False, 1, 12, True, 256)
VIDEO = VideoFrontEnd(1.0, 4, 16)


def test_sixteen_bit_samples_are_exact(golden_dir: Path) -> None:
    whole, _ = soundfile.read(golden_dir / "speech.wav", dtype="int16")
    np.testing.assert_array_equal(read_audio(golden_dir / "speech.wav").samples * 32768, whole.astype(np.float32))


def test_a_header_that_promises_too_much_gives_what_is_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.25), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    data = content.index(b"data")
    content[data + 4 : data + 8] = struct.pack("<I", 0xFFFFFFF0)
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_audio(tmp_path / "a.wav", max_seconds=1.0).samples) == 8000


def test_a_recording_that_was_cut_off_gives_its_beginning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.25), 16000)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-8000])
    assert len(read_audio(tmp_path / "a.wav").samples) == 4000


@pytest.mark.parametrize("name", ["a.raw", "a.wav", "a.flac", "a"])
def test_any_name_of_what_is_not_audio_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 16)
    with pytest.raises(InputError, match="not a recording") as refused:
        read_audio(tmp_path / name)
    assert refused.value.file == str(tmp_path / name)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_compressed_recordings_are_read(tmp_path: Path, name: str) -> None:
    tone = 0.3 * np.sin(np.arange(16000) / 20)
    soundfile.write(tmp_path / name, tone, 16000)
    np.testing.assert_allclose(read_audio(tmp_path / name).samples, tone, atol=0.05)


def test_integers_that_nobody_divided_are_refused() -> None:
    with pytest.raises(InputError, match="samples reach 20000, expected -1 to 1"):
        read_audio((np.array([0.0, 20000.0]), 16000))


def test_samples_in_memory_of_odd_shapes() -> None:
    with pytest.raises(InputError, match="no samples"):
        read_audio((np.zeros((0, 2)), 16000))
    with pytest.raises(InputError, match="16000 channels") as refused:
        read_audio((np.zeros((2, 16000)), 16000))
    assert "samples come first" in (refused.value.fix or "")
    with pytest.raises(InputError, match="of shape"):
        read_audio((np.float32(0.5), 16000))
    np.testing.assert_array_equal(read_audio((np.array([-32768, 16384], np.int16), 16000)).samples, [-1.0, 0.5])


def test_too_short_names_the_file_what_was_found_and_the_least(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "click.wav", np.zeros(882), 44100)
    with pytest.raises(InputError, match=r"20 ms of audio, too short .* at least 85 ms") as refused:
        mel_filterbank(read_audio(tmp_path / "click.wav"), AUDIO)
    assert refused.value.file == str(tmp_path / "click.wav")
    assert len(mel_filterbank(Waveform(np.zeros(1360, np.float32), 16000), AUDIO)) == 7
    with pytest.raises(InputError, match="too short"):
        mel_filterbank(Waveform(np.zeros(1359, np.float32), 16000), AUDIO)


def test_a_device_is_never_replaced_by_a_recording() -> None:
    with pytest.raises(InputError, match="not a regular file"):
        write_wav("/dev/null", np.zeros(10, np.float32), 24000)


def test_an_older_recording_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(10, np.float32), 24000)
    with pytest.raises(InputError, match="not numbers"), WavWriter(tmp_path / "a.wav", 24000) as wav:
        wav.append(np.array([0.5, np.nan], np.float32))
    assert [soundfile.info(path).frames for path in tmp_path.iterdir()] == [10]


@pytest.mark.parametrize(("size", "tiles"), [((1, 1), 1), ((20000, 300), 13)])
def test_pictures_of_extreme_shapes_at_full_size(size: tuple[int, int], tiles: int) -> None:
    assert pixels(tile_image(Image.new("RGB", size, "red"), IMAGE), IMAGE).shape == (tiles, 3, 448, 448)


def test_sixteen_bit_pictures_keep_their_greys(tmp_path: Path) -> None:
    greys = (np.arange(600).reshape(20, 30) * 109).astype(np.uint16)
    Image.fromarray(greys).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png"))[..., 0], greys >> 8)


def test_formats_that_run_other_programs_are_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    with pytest.raises(InputError, match="not a picture"):
        read_image(tmp_path / "a.eps")


def test_a_picture_opened_but_damaged_is_refused(tmp_path: Path) -> None:
    Image.effect_noise((200, 200), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    with Image.open(tmp_path / "cut.png") as picture, pytest.raises(InputError, match="cannot be decoded"):
        read_image(picture)


def test_the_first_picture_of_an_animation_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "blue").save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]
    )
    assert read_image(tmp_path / "a.gif").getpixel((0, 0)) == (0, 0, 255)


def test_pictures_as_arrays() -> None:
    assert read_image(np.zeros((4, 5, 3), np.uint8)).size == (5, 4)
    for wrong in (np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.float32), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(InputError, match=r"expected"):
            read_image(wrong)


def write_clip(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> None:
    av = pytest.importorskip("av", reason="reading videos needs PyAV: pip install 'sottovoce[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            picture = Image.effect_noise(size, 60).convert("RGB") if index else Image.new("RGB", size)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def test_a_clip_that_was_cut_off_gives_as_many_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", 60)
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    assert 4 <= len(read_video(tmp_path / "a.avi", VIDEO)) <= 12


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", 10)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.avi\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile a.avi\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(InputError, match="cannot be decoded"):
            read_video(tmp_path / name, VIDEO)


def test_frames_of_extreme_shape_are_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", 2, (2048, 16))
    with pytest.raises(InputError, match="frames of 2048×16"):
        read_video(tmp_path / "a.avi", VIDEO)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(Exception, match="PyAV") as missing:
        read_video(tmp_path / "a.mp4", VIDEO)
    assert "sottovoce[video]" in missing.value.fix
