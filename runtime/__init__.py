"""Bundle in, conversation out: numpy and an inference engine; no torch.

    from sottovoce.runtime import Assistant, read_audio

The public names are imported when they are used, so that a program that needs an error class does not load an engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sottovoce.runtime.assistant import Assistant
    from sottovoce.runtime.bundle import Bundle
    from sottovoce.runtime.conversation import Conversation
    from sottovoce.runtime.conversation_set.capture_folder import CaptureFolder
    from sottovoce.runtime.conversation_set.captured_conversation import CapturedConversation
    from sottovoce.runtime.conversation_set.question_files import CaptureLimits
    from sottovoce.runtime.dialogue.turns import Turn
    from sottovoce.runtime.errors import BackendError, BundleError, CheckpointError, InputError, SottovoceError
    from sottovoce.runtime.features.audio_file import Waveform, WavWriter, read_audio, write_wav
    from sottovoce.runtime.profile import peak_memory_mb
    from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent, TextDelta
    from sottovoce.runtime.tensor_dump import TensorDump

_PLACES = {
    "assistant": ("Assistant",),
    "bundle": ("Bundle",),
    "conversation": ("Conversation",),
    "conversation_set.capture_folder": ("CaptureFolder",),
    "conversation_set.captured_conversation": ("CapturedConversation",),
    "conversation_set.question_files": ("CaptureLimits",),
    "errors": ("BackendError", "BundleError", "CheckpointError", "InputError", "SottovoceError"),
    "features.audio_file": ("WavWriter", "Waveform", "read_audio", "write_wav"),
    "profile": ("peak_memory_mb",),
    "reply": ("AudioChunk", "ReplyDone", "ReplyEvent", "TextDelta"),
    "tensor_dump": ("TensorDump",),
    "dialogue.turns": ("Turn",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Assistant",
    "AudioChunk",
    "BackendError",
    "Bundle",
    "BundleError",
    "CaptureFolder",
    "CaptureLimits",
    "CapturedConversation",
    "CheckpointError",
    "Conversation",
    "InputError",
    "ReplyDone",
    "ReplyEvent",
    "SottovoceError",
    "TensorDump",
    "TextDelta",
    "Turn",
    "WavWriter",
    "Waveform",
    "peak_memory_mb",
    "read_audio",
    "write_wav",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
