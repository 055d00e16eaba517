"""`sottovoce chat`: a spoken conversation, from the microphone to the speaker."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.chat.camera import Camera
from sottovoce.runtime.chat.keyboard import Keyboard
from sottovoce.runtime.chat.loop import ChatLoop, People
from sottovoce.runtime.chat.parts import Parts
from sottovoce.runtime.chat.reply_sound import SPEAKER_SECONDS
from sottovoce.runtime.chat.screen import Screen
from sottovoce.runtime.chat.session import ChatSession
from sottovoce.runtime.chat.stopping import StopWish
from sottovoce.runtime.chat.worker import ConversationWorker
from sottovoce.runtime.commands.capturing import Capturing
from sottovoce.runtime.commands.options import (
    BUNDLE,
    FILE,
    backend_choice,
    capturing,
    check_capturing,
    common,
    sampling,
)
from sottovoce.runtime.console import Console
from sottovoce.runtime.devices import (
    CaptureDevice,
    DeviceError,
    DeviceSettings,
    EchoCancellingMicrophone,
    PlaybackDevice,
    SteppedClock,
    WavMicrophone,
    WavSpeaker,
    list_devices,
    open_microphone,
    open_speaker,
)
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.profile import peak_memory_mb
from sottovoce.runtime.steady_memory import give_back_freed_memory, keep_what_is_loaded


@dataclass(frozen=True)
class ChatOptions:
    """What the flags say."""

    microphone: str | None
    speaker: str | None
    typed_only: bool
    silent: bool
    audio_in: Path | None
    audio_out: Path | None
    half_duplex: bool
    echo_canceller: bool | None
    pause_ms: int
    interruption_ms: int
    images: tuple[Path, ...]
    camera: str | None
    record: Path | None
    system: str | None
    backend: str
    require_engine: bool
    threads: int | None
    greedy: bool
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    seed: int | None
    max_new_tokens: int | None
    capture: Path | None
    capture_max: int | None


def _list_devices(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    rows = [
        [str(one.index), one.name, str(one.inputs or ""), str(one.outputs or ""), f"{one.sample_rate:,}",
         " ".join(word for word, holds in (("in", one.is_default_input), ("out", one.is_default_output)) if holds)]
        for one in list_devices()
    ]  # fmt: skip
    Console().table("", ["index", "name", "inputs", "outputs", "rate", "default"], rows, [0, 2, 3, 4])
    context.exit()


@click.command("chat")
@BUNDLE
@click.option("--list-devices", is_flag=True, is_eager=True, expose_value=False, callback=_list_devices,
              help="Show microphones and speakers, and end.")  # fmt: skip
@click.option("--microphone", metavar="NAME", help="Part of a name, or an index; default: the system's.")
@click.option("--speaker", metavar="NAME", help="The same for playing.")
@click.option("--typed-only", is_flag=True, help="No microphone: lines are typed.")
@click.option("--silent", is_flag=True, help="No speaker: replies are read.")
@click.option("--audio-in", type=FILE, metavar="F.wav", help="Hear a recording instead of a microphone.")
@click.option("--audio-out", type=FILE, metavar="F.wav", help="Write what would be played into a file.")
@click.option("--half-duplex", is_flag=True, help="Hear nothing while the reply is played.")
@click.option("--echo-canceller/--no-echo-canceller", default=None,
              help="Take the reply out of what is heard; default: with devices, if libspeexdsp is there.")  # fmt: skip
@click.option("--pause-ms", type=click.IntRange(200, 5000), default=500, show_default=True,
              help="Silence that ends a turn.")  # fmt: skip
@click.option("--interruption-ms", type=click.IntRange(160, 5000), default=500, show_default=True,
              help="Speech that stops a reply; shorter, it was a cough or a yes.")  # fmt: skip
@click.option("--image", "images", type=FILE, multiple=True, metavar="F", help="A picture for the first turn.")
@click.option("--camera", metavar="DEVICE", help="Show what this camera sees with each turn: /dev/video0, or a clip.")
@click.option("--record", type=FILE, metavar="DIR", help="Keep sound, events and timings, for `sottovoce replay`.")
@click.option("--system", metavar="S", help="Who the assistant is; default: as the bundle says.")
@click.option("--threads", type=click.IntRange(1), help="CPU cores to use; default: all this process may use.")
@backend_choice
@sampling
@capturing
@common
def chat_command(bundle: Path, as_json: bool, debug: bool, **flags: Any) -> None:
    """Talk with BUNDLE: speak or type; it answers, and stops when you speak.

    Nothing is recorded unless --record or --capture asks for it. Typed, /image FILE, /stop and /quit are commands.
    """
    options = ChatOptions(**flags)
    if options.typed_only and (options.audio_in or options.microphone):
        raise click.UsageError("--typed-only leaves no microphone; drop it, or --audio-in and --microphone")
    if options.silent and (options.audio_out or options.speaker):
        raise click.UsageError("--silent leaves no speaker; drop it, or --audio-out and --speaker")
    check_capturing(options.capture, options.capture_max)
    _Chat(bundle, options, Console(as_json), debug).go()


class _Chat:
    """One conversation: everything opened, held, and closed again."""

    def __init__(self, bundle: Path, options: ChatOptions, console: Console, debug: bool) -> None:
        self._bundle, self._options, self._console, self._debug = bundle, options, console, debug

    def go(self) -> None:
        options = self._options
        give_back_freed_memory()
        with ExitStack() as stack:
            with self._console.progress() as progress:
                assistant = stack.enter_context(
                    Assistant.open(
                        self._bundle,
                        options.backend,
                        threads=options.threads,
                        require_engine=options.require_engine,
                        progress=progress,
                    )
                )
            capturing = None
            if options.capture is not None:  # a folder that cannot be written shows at once
                capturing = Capturing(options.capture, options.capture_max, assistant.bundle, self._console)
            assistant.load(speech=not options.silent)
            keep_what_is_loaded()
            stop = stack.enter_context(StopWish())
            screen = Screen(sys.stderr if self._console.as_json else sys.stdout)
            stack.callback(screen.close)
            session, loop = self._put_together(stack, assistant, screen, stop, capturing)
            for image in options.images:
                session.show(image)
            loop.run()
        self._console.result(
            {
                "turns": [turn.as_json() for turn in session.turns.values()],
                "peak_memory_mb": round(peak_memory_mb(), 1),
                "record": str(options.record) if options.record else None,
                "capture": str(options.capture) if options.capture else None,
            }
        )

    def _put_together(
        self, stack: ExitStack, assistant: Assistant, screen: Screen, stop: StopWish, capturing: Capturing | None
    ) -> tuple[ChatSession, ChatLoop]:
        options = self._options
        conversation = assistant.conversation(
            options.system,
            greedy=options.greedy,
            seed=options.seed,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            repetition_penalty=options.repetition_penalty,
            max_new_tokens=options.max_new_tokens,
            speech=not options.silent,
        )
        worker = ConversationWorker(conversation, None if capturing is None else capturing.begin(conversation))
        stack.callback(worker.close)
        clock = SteppedClock() if self._has_no_device else time.monotonic
        speaker = self._speaker(stack, assistant.sample_rate, clock)
        microphone = self._microphone(stack, clock, speaker, screen)
        settings = DuplexSettings(
            end_ms=options.pause_ms,
            interruption_ms=options.interruption_ms,
            half_duplex=options.half_duplex,
            max_turn_ms=min(DuplexSettings.max_turn_ms, int(1000 * assistant.bundle.manifest.audio.max_seconds)),
        )
        witness = None
        if options.record is not None:
            from sottovoce.runtime.recording.recorder import Recorder
            from sottovoce.runtime.recording.session import session_about

            about = session_about(
                assistant.bundle, conversation.options, settings, assistant.sample_rate, options.backend,
                options.threads,
            )  # fmt: skip
            witness = stack.enter_context(Recorder(options.record, about, on_stop=screen.notice))
            screen.notice(f"recording: what is said and shown is kept in {options.record}")
        parts = Parts(worker, microphone, speaker, screen, clock, assistant.sample_rate, settings, witness)
        session = ChatSession(parts)
        people = People(stack.enter_context(Keyboard()), screen, stop, *self._camera(stack))
        return session, ChatLoop(session, parts, people)

    @property
    def _has_no_device(self) -> bool:
        """Whether all sound is in files, so that nobody waits for a clock."""
        options = self._options
        return options.audio_in is not None and (options.silent or options.audio_out is not None)

    def _speaker(self, stack: ExitStack, sample_rate: int, clock: Any) -> PlaybackDevice | None:
        options = self._options
        if options.silent:
            return None
        if options.audio_out is not None:
            return stack.enter_context(WavSpeaker(options.audio_out, sample_rate, clock, self._device_settings))
        return stack.enter_context(open_speaker(self._device_settings, sample_rate))

    def _microphone(
        self, stack: ExitStack, clock: Any, speaker: PlaybackDevice | None, screen: Screen
    ) -> CaptureDevice | None:
        options = self._options
        if options.typed_only:
            return None
        if options.audio_in is not None:
            return stack.enter_context(WavMicrophone(options.audio_in, clock))
        microphone: CaptureDevice = stack.enter_context(open_microphone(self._device_settings))
        if speaker is None or options.half_duplex or options.echo_canceller is False:
            return microphone
        try:
            return stack.enter_context(EchoCancellingMicrophone(microphone, speaker))
        except DeviceError as problem:
            if options.echo_canceller:
                raise
            screen.notice(f"{problem.message}: with loudspeakers use --half-duplex, with headphones all is well")
            return microphone

    @property
    def _device_settings(self) -> DeviceSettings:
        options = self._options
        return DeviceSettings(
            _named(options.microphone),
            _named(options.speaker),
            playback_seconds=SPEAKER_SECONDS,
            debug=self._debug,
        )

    def _camera(self, stack: ExitStack) -> tuple[Camera | None, Path | None]:
        if self._options.camera is None:
            return None, None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sottovoce-camera-")))
        return stack.enter_context(Camera(self._options.camera)), folder


def _named(device: str | None) -> str | int | None:
    return int(device) if device is not None and device.isdigit() else device
