"""When a pause is the end of a turn, and when a sound is an interruption: everything that can be set."""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.runtime.duplex.events import CAPTURE_RATE
from sottovoce.runtime.duplex.numbers import check_range
from sottovoce.runtime.records import RecordError, read_record

_RANGES: dict[str, tuple[float, float]] = {
    "threshold": (0.01, 0.99),
    "release_threshold": (0.01, 0.99),
    "onset_ms": (32, 1_000),
    "detector_lag_ms": (0, 200),
    "resume_ms": (32, 1_000),
    "preroll_ms": (0, 2_000),
    "prepare_ms": (32, 5_000),
    "end_ms": (32, 10_000),
    "max_turn_ms": (1_000, 3_600_000),
    "interruption_ms": (32, 5_000),
    "echo_tail_ms": (0, 5_000),
    "stop_report_ms": (10, 5_000),
    "stall_ms": (500, 60_000),
}


@dataclass(frozen=True)
class DuplexSettings:
    """All in milliseconds of captured sound, but for the last three, which are of the clock.

    Args:
        threshold: a window is voiced from this probability on…
        release_threshold: …and those right after it from this one on.
        onset_ms: voiced sound that makes the user's turn, while no reply is being given.
        detector_lag_ms: windows are still voiced so long after the end of speech; silence counts from that end.
        resume_ms: voiced sound in a row that ends a pause within a turn, once the reply was prepared.
        preroll_ms: captured before the first voiced window, and part of the turn: its first phoneme.
        prepare_ms: silence after which the reply may be begun silently. It is the last of the turn that is heard.
        end_ms: silence that ends the turn.
        max_turn_ms: a turn that lasts longer is cut here.
        interruption_ms: voiced sound that stops a reply; shorter, it was a cough, a "yes" or an "okay" (up to 480 ms).
        duck: lower the volume of a reply from `onset_ms` of voiced sound until it is known what it was.
        half_duplex: hear nothing while a reply sounds, for rooms where the microphone hears the speaker.
        echo_tail_ms: how much longer then, after its end.
        stop_report_ms: how long the speaker may take to say what it played; then its last report counts.
        stall_ms: a finished reply whose playing does not go on for so long is given up.

    Raises:
        RecordError: out of range, or two that do not fit together.
    """

    threshold: float = 0.6
    release_threshold: float = 0.35
    onset_ms: int = 160
    detector_lag_ms: int = 64
    resume_ms: int = 64
    preroll_ms: int = 300
    prepare_ms: int = 200
    end_ms: int = 500
    max_turn_ms: int = 30_000
    interruption_ms: int = 500
    duck: bool = True
    half_duplex: bool = False
    echo_tail_ms: int = 250
    stop_report_ms: int = 500
    stall_ms: int = 5_000

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            check_range(name, getattr(self, name), low, high)
        self._check_order("release_threshold", "threshold")
        self._check_order("prepare_ms", "end_ms")
        if self.prepare_ms - self.detector_lag_ms < 32:
            message = f"detector_lag_ms is {self.detector_lag_ms}, prepare_ms {self.prepare_ms}; expected 32 ms between"
            raise RecordError(message, fix="lower detector_lag_ms or raise prepare_ms")
        self._check_order("onset_ms", "interruption_ms")

    def _check_order(self, smaller: str, larger: str) -> None:
        if getattr(self, smaller) > getattr(self, larger):
            message = f"{smaller} is {getattr(self, smaller)}, more than {larger}, which is {getattr(self, larger)}"
            raise RecordError(message, fix=f"lower {smaller} or raise {larger}")


def samples(milliseconds: int) -> int:
    """Samples of the capture stream in so much time."""
    return milliseconds * CAPTURE_RATE // 1000


def read_settings(data: object, *, source: str, path: str = "") -> DuplexSettings:
    """Settings from parsed JSON or YAML; what is left out has its default.

    Raises:
        RecordError: an unknown key, a value of another type or out of range; the message holds the path.
    """
    try:
        return read_record(DuplexSettings, data, source=source, path=path)
    except OverflowError as problem:
        raise RecordError(f"{path or 'the settings'}: a number is too large", file=source) from problem
    except RecordError as problem:
        if problem.file is not None:
            raise
        where = f"{path}.{problem.message}" if path else problem.message
        raise RecordError(where, file=source, fix=problem.fix) from problem
