"""Recordings, pictures and clips into arrays: the reference's values, and every kind of input that is not one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Waveform, WavWriter, read_audio, write_wav
from sottovoce.runtime.features.fbank import MelFilterbank, mel_filterbank, token_count
from sottovoce.runtime.features.images import choose_grid, pixels, read_image, tile_image
from sottovoce.runtime.features.video import frame_positions, read_video
from sottovoce.runtime.manifest import AudioFrontEnd, ImageFrontEnd, VideoFrontEnd

AUDIO = AudioFrontEnd(16000, 80, 25.0, 10.0, 32768.0, 7, 120.0, ((2, 2), (2, 2), (0, 2)), 0)
IMAGE = ImageFrontEnd(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False, 1, 12, True, 64)
VIDEO = VideoFrontEnd(1.0, 4, 16)


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def test_filterbank_equals_the_reference(golden: dict[str, np.ndarray], golden_dir: Path) -> None:
    frames = mel_filterbank(read_audio(golden_dir / "speech.wav"), AUDIO)
    np.testing.assert_allclose(frames, golden["audio.fbank"], atol=1e-4)


@pytest.mark.parametrize("portion", [160, 777, 16000])
def test_streamed_filterbank_equals_the_whole(golden_dir: Path, portion: int) -> None:
    samples = read_audio(golden_dir / "speech.wav").samples
    stream = MelFilterbank(AUDIO)
    parts = [stream.append(samples[i : i + portion]) for i in range(0, len(samples), portion)]
    np.testing.assert_array_equal(np.concatenate(parts), mel_filterbank(Waveform(samples, 16000), AUDIO))


@pytest.mark.parametrize("end", [0, 399, 400, 12_345])
def test_a_filterbank_that_was_paused_goes_on_to_the_bit(golden_dir: Path, end: int) -> None:
    samples = read_audio(golden_dir / "speech.wav").samples
    stream = MelFilterbank(AUDIO)
    first = stream.append(samples[:end])
    paused = stream.pause()
    assert len(paused) < 400 + 160
    stream.append(np.ones(5000, dtype=np.float32))
    stream.resume(paused)
    rest = [stream.append(samples[end + i : end + i + 777]) for i in range(0, len(samples) - end, 777)]
    np.testing.assert_array_equal(np.concatenate([first, *rest]), mel_filterbank(Waveform(samples, 16000), AUDIO))


def test_token_count_follows_the_mask(golden_json: dict[str, Any]) -> None:
    for frames, tokens, _ in golden_json["audio"]["length_table"]:
        assert token_count(frames, AUDIO) == tokens


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_sample_width_reads_as_the_same_sound(tmp_path: Path, subtype: str, channels: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.repeat(tone(0.2)[:, None], channels, axis=1), 16000, subtype)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, tone(0.2), atol=1.1 / 128)


def test_other_rates_are_resampled() -> None:
    at_44k = Waveform(tone(1.0, 44100), 44100).at_rate(16000)
    assert abs(len(at_44k.samples) - 16000) <= 1
    np.testing.assert_allclose(at_44k.samples[1000:-1000], tone(1.0)[1000 : len(at_44k.samples) - 1000], atol=2e-3)


def test_stereo_is_the_mean_of_its_channels() -> None:
    both = np.stack([np.full(2000, 0.5), np.full(2000, -0.1)], axis=1)
    np.testing.assert_allclose(read_audio((both, 16000)).samples, np.full(2000, 0.2), atol=1e-6)


def test_silence_is_a_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    frames = mel_filterbank(read_audio(tmp_path / "silent.wav"), AUDIO)
    assert frames.shape == (98, 80)
    assert np.isfinite(frames).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"RIFF\x00\x00", "not a recording"), (b"<html>hello</html>" * 50, "not a recording")],
)
def test_what_is_not_audio_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=says) as refused:
        read_audio(tmp_path / "a.wav")
    assert refused.value.file == str(tmp_path / "a.wav")
    assert refused.value.fix


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.wav", tmp_path):
        with pytest.raises(InputError, match="no such recording"):
            read_audio(path)


def test_no_samples_too_short_and_too_long_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(InputError, match="no samples"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(InputError, match=r"20 ms of audio, too short .* at least 85 ms"):
        mel_filterbank(Waveform(tone(0.02), 16000), AUDIO)
    soundfile.write(tmp_path / "long.wav", np.zeros(600 * 8000, dtype=np.int16), 8000)
    with pytest.raises(InputError, match=r"600.0 s of audio, more than the limit of 120 s"):
        read_audio(tmp_path / "long.wav", max_seconds=AUDIO.max_seconds)
    with pytest.raises(InputError, match="more than the model's limit"):
        mel_filterbank(Waveform(np.zeros(121 * 16000, np.float32), 16000), AUDIO)


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="not numbers"):
        read_audio((np.array([0.0, np.nan]), 16000))
    with pytest.raises(InputError, match="samples a second"):
        read_audio((np.zeros(10), 7))
    with pytest.raises(InputError, match="of type int64"):
        read_audio((np.zeros(10, dtype=np.int64), 16000))


def test_a_wav_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write_wav(tmp_path / "reply.wav", np.array([0.5, 2.0, -2.0], np.float32), 24000)
    samples, rate = soundfile.read(tmp_path / "reply.wav", dtype="int16")
    assert rate == 24000
    np.testing.assert_array_equal(samples, [16384, 32767, -32768])
    with pytest.raises(KeyboardInterrupt), WavWriter(tmp_path / "half.wav", 24000) as wav:
        wav.append(np.zeros(100, np.float32))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["reply.wav"]
    with pytest.raises(InputError, match="does not exist"):
        write_wav(tmp_path / "nowhere" / "a.wav", tone(0.1), 24000)


def test_pixels_equal_the_reference(golden: dict[str, np.ndarray], golden_dir: Path) -> None:
    found = pixels(tile_image(read_image(golden_dir / "picture.png"), IMAGE), IMAGE)
    np.testing.assert_allclose(found, golden["image.pixels"], atol=1e-6)


def test_grids_equal_the_reference(golden_json: dict[str, Any]) -> None:
    front_end = replace(IMAGE, image_size=448)
    for (width, height), grid, tiles in golden_json["image"]["grids_at_448_max12"]:
        columns, rows = choose_grid(width, height, front_end)
        assert [columns, rows] == grid
        assert columns * rows + (columns * rows > 1) == tiles


@pytest.mark.parametrize(("size", "tiles"), [((1, 1), 1), ((20000, 300), 13), ((3, 2000), 13)])
def test_pictures_of_odd_shapes(size: tuple[int, int], tiles: int) -> None:
    assert pixels(tile_image(Image.new("RGB", size, "red"), IMAGE), IMAGE).shape == (tiles, 3, 224, 224)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "CMYK", "I;16", "LA"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    name = "a.tiff" if mode == "CMYK" else "a.png"
    Image.new(mode, (30, 20)).save(tmp_path / name)
    picture = read_image(tmp_path / name)
    assert (picture.mode, picture.size) == ("RGB", (30, 20))


def test_padding_to_a_square_uses_the_mean_colour() -> None:
    front_end = replace(IMAGE, pad_to_square=True, image_size=40)
    found = pixels([Image.new("RGB", (40, 20), "white")], front_end)
    assert abs(found[0, :, 0, 0]).max() < 0.02
    assert found[0, :, 20, 20].min() > 2


def test_what_is_not_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="not a picture"):
        read_image(tmp_path / "text.png")
    Image.effect_noise((200, 200), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(tmp_path / "cut.png")
    with pytest.raises(InputError, match="no such picture"):
        read_image(tmp_path / "nothing.png")
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"20000×20000 pixels|cannot be decoded"):
        read_image(tmp_path / "bomb.png")


def test_frame_positions_equal_the_reference(golden_json: dict[str, Any]) -> None:
    for frames, fps, positions in golden_json["video"]:
        assert frame_positions(frames, fps, VIDEO) == positions


def test_a_clip_gives_one_frame_a_second(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="reading videos needs PyAV: pip install 'sottovoce[video]'")
    with av.open(str(tmp_path / "clip.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for index in range(30):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (index * 8, 0, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = read_video(tmp_path / "clip.avi", VIDEO)
    assert [frame.getpixel((5, 5))[0] for frame in frames] == [0, 40, 80, 120, 160, 200]


def test_what_is_not_a_clip_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="reading videos needs PyAV: pip install 'sottovoce[video]'")
    (tmp_path / "a.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_video(tmp_path / "a.mp4", VIDEO)
    soundfile.write(tmp_path / "sound.wav", tone(0.2), 16000)
    with pytest.raises(InputError, match="no picture track"):
        read_video(tmp_path / "sound.wav", VIDEO)
