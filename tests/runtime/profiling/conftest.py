"""A profile of the tiny bundle, measured once and quickly, for all tests of reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.profiling import ceilings, speech_speed
from sottovoce.runtime.profiling.options import ProfileOptions
from sottovoce.runtime.profiling.profiler import Profiled, Profiler
from sottovoce.runtime.profiling.report import ProfileReport
from sottovoce.runtime.profiling.summing_up import summed_up
from sottovoce.runtime.progress import SilentProgress

MAX_CODES = 12
"""Of a piece: one chunk of the onset and a rest. The tiny bundle's codec is not tiny, and random weights never stop."""


@pytest.fixture(scope="session", autouse=True)
def quick_ceilings() -> Iterator[None]:
    """A ceiling that is far too low will do for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "LEAST_BYTES", 1 << 20)
        patch.setattr(ceilings, "MOST_BYTES", 1 << 20)
        patch.setattr(ceilings, "LEAST_SECONDS", 0.0)
        patch.setattr(speech_speed, "SPOKEN_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session")
def question_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of a tone."""
    path = tmp_path_factory.mktemp("asked") / "tone & <noise>.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(8000) / 10), 16000)
    return path


@pytest.fixture(scope="session")
def profiled(tiny_bundle: Path, question_wav: Path) -> Profiled:
    bundle = Bundle.open(tiny_bundle)
    speech = replace(bundle.manifest.speech, max_codes=MAX_CODES)
    bundle = Bundle(bundle.path, replace(bundle.manifest, speech=speech))
    options = ProfileOptions(
        audio=question_wav, threads=1, runs=2, warm_up=0, contexts=(32, 64, 10**6), max_new_tokens=12
    )
    return Profiler(bundle, options, SilentProgress()).measure()


@pytest.fixture(scope="session")
def report(profiled: Profiled) -> ProfileReport:
    return summed_up(profiled)
