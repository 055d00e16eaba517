"""Log mel filterbank energies as Kaldi's compute-fbank-feats gives them, whole or as the samples come in."""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
import numpy.typing as npt

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Samples, Waveform
from sottovoce.runtime.manifest import AudioFrontEnd

Frames = npt.NDArray[np.float32]


class MelFilterbank:
    """Streaming filterbank: samples in any portions, frames as soon as they are complete (snip edges)."""

    def __init__(self, front_end: AudioFrontEnd) -> None:
        self._front_end = front_end
        options = knf.FbankOptions()
        options.frame_opts.samp_freq = front_end.sample_rate
        options.frame_opts.frame_length_ms = front_end.frame_length_ms
        options.frame_opts.frame_shift_ms = front_end.frame_shift_ms
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = front_end.mel_bins
        options.use_energy = False
        self._options = options
        self._shift = int(front_end.sample_rate * 0.001 * front_end.frame_shift_ms)  # as Kaldi rounds it
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._fbank = knf.OnlineFbank(self._options)
        self._given = 0
        self._unframed = np.zeros(0, dtype=np.float32)

    def pause(self) -> Samples:
        """Samples that frames to come are made of: all that `resume` needs to go on from here."""
        return self._unframed

    def resume(self, unframed: Samples) -> None:
        """Go on from where `pause` gave these samples; the frames are the same to the bit."""
        self.reset()
        self.append(unframed)

    def append(self, samples: Samples) -> Frames:
        """Take samples (n,) in -1…1 at the front end's rate; return the frames that became complete (m, mel_bins)."""
        self._fbank.accept_waveform(self._front_end.sample_rate, samples * np.float32(self._front_end.waveform_scale))
        ready = range(self._given, self._fbank.num_frames_ready)
        frames = np.empty((len(ready), self._front_end.mel_bins), dtype=np.float32)
        for row, index in enumerate(ready):
            frames[row] = self._fbank.get_frame(index)  # copied: the library reuses the memory once it is popped
        self._given += len(ready)
        self._fbank.pop(len(ready))
        self._unframed = np.concatenate((self._unframed, samples))[len(ready) * self._shift :]
        return frames


def mel_filterbank(waveform: Waveform, front_end: AudioFrontEnd) -> Frames:
    """All frames (n, mel_bins) of a recording, resampled first if it must be.

    Raises:
        InputError: longer than the front end takes, or too short for one token.
    """
    if waveform.seconds > front_end.max_seconds:
        message = f"{waveform.seconds:.1f} s of audio, more than the model's limit of {front_end.max_seconds:g} s"
        raise InputError(message, file=waveform.file, fix="cut it into shorter turns")
    frames = MelFilterbank(front_end).append(waveform.at_rate(front_end.sample_rate).samples)
    require_frames(len(frames), waveform, front_end)
    return frames


def require_frames(frames: int, waveform: Waveform, front_end: AudioFrontEnd) -> None:
    """Check that a recording became frames enough.

    Raises:
        InputError: they are too few for one token.
    """
    if frames < front_end.min_frames:
        found_ms, needed_ms = 1000 * waveform.seconds, shortest_ms(front_end)
        message = f"{found_ms:.0f} ms of audio, too short to hear anything in: at least {needed_ms:.0f} ms"
        raise InputError(message, file=waveform.file, fix="record a longer question")


def shortest_ms(front_end: AudioFrontEnd) -> float:
    """The shortest recording that gives frames enough for a token, in milliseconds."""
    return front_end.frame_length_ms + (front_end.min_frames - 1) * front_end.frame_shift_ms


def token_count(frames: int, front_end: AudioFrontEnd) -> int:
    """Embeddings that `frames` fbank frames become, learned prompts included: the mask's rule, step by step."""
    for start, stride in front_end.subsampling:
        frames = len(range(start, frames, stride))
    return frames + front_end.prompt_tokens
