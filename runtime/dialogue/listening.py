"""One user turn on its way into the context while it is spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.dialogue.asking import with_shown
from sottovoce.runtime.dialogue.context import Context, Logits, Mark, Part
from sottovoce.runtime.features.fbank import shortest_ms
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.question import Question, see, spliced
from sottovoce.runtime.speech_in.hearing import Hearing, HearingSnapshot
from sottovoce.runtime.text.prompt import AUDIO_ID, UserContent

Floats = npt.NDArray[np.float32]
Opening = Callable[[UserContent, bool], list[int]]
"""What comes before a user turn of such content (with a video or not): the system turn, or the last reply's end."""


@dataclass(frozen=True)
class ListeningSnapshot:
    """Where a turn stood at a pause."""

    hearing: HearingSnapshot
    fed: int
    start: Mark | None
    end: Mark


class Listening:
    """What is heard goes into the context as soon as it is certain, behind what was shown and typed with it.

    Args:
        model: the bundle's stages.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.stopwatch = Stopwatch()
        self._hearing = Hearing(model, self.stopwatch)
        self._shown: list[Question] = []
        self._tiles: list[Floats] = []
        self._rows: list[Floats] = []
        self._fed = 0
        self._start: Mark | None = None

    @property
    def seconds(self) -> float:
        """How much was heard."""
        return self._hearing.seconds

    @property
    def is_long_enough(self) -> bool:
        """Whether the audio encoder can make anything of it."""
        return 1000 * self.seconds >= shortest_ms(self._model.manifest.audio)

    @property
    def content(self) -> UserContent:
        """What the turn is made of so far."""
        return UserContent(len(self._tiles), audio=True)

    @property
    def question(self) -> Question:
        """The turn as a question that could be asked again."""
        return with_shown(Question(audio=self._hearing.waveform), self._shown)

    def append(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Hear (n,) samples; the context learns of it with `feed`.

        Raises:
            InputError: not audio, at another rate than before, or more than the model hears in one turn.
        """
        rows = self._hearing.append(samples, sample_rate)
        if len(rows):
            self._rows.append(rows)

    def show(self, question: Question) -> None:
        """Pictures that belong to the turn. They stand before what is heard: that is fed again if it was already.

        Raises:
            InputError: a picture that cannot be read.
        """
        self._tiles += list(see(question, self._model, self.stopwatch))
        self._shown.append(question)

    def feed(self, context: Context, opening: Opening) -> None:
        """Bring the context to what is certain.

        Raises:
            InputError: the turn alone does not fit into the context.
            BackendError: the engine failed.
        """
        if len(self._rows) > self._fed or self._start is None:
            self._append(context, self._beginning(context, opening))

    def finish(self, context: Context, opening: Opening) -> Logits:
        """The turn is over: feed the rest of it → (V,) logits of the reply's first token.

        Raises:
            InputError: nothing was heard, or too little, or the turn does not fit into the context.
            BackendError: the engine failed.
        """
        rest = self._hearing.finish()
        return self._append(context, [*self._beginning(context, opening), rest, self._halves()[1]])

    def unfeed(self, context: Context) -> None:
        """Take the turn out of the context again; what was heard is kept and can be fed anew."""
        if self._start is not None and self._start.position < context.length:
            context.rewind(self._start.position)
        self._start, self._fed = None, 0

    def pause(self, context: Context) -> ListeningSnapshot:
        """Where the turn stands, to go back to after a `finish` that came too early."""
        return ListeningSnapshot(self._hearing.pause(), self._fed, self._start, context.mark())

    def resume(self, snapshot: ListeningSnapshot, context: Context) -> None:
        """Go back: the turn goes on. The context is taken back with it, as far as the turn is in it."""
        self._hearing.resume(snapshot.hearing)
        if snapshot.start is None or snapshot.start is not self._start or snapshot.end.position > context.length:
            self.unfeed(context)
            return
        context.rewind(snapshot.end.position)
        self._fed = snapshot.fed

    def _beginning(self, context: Context, opening: Opening) -> list[Part]:
        """What must be fed before anything new: frame and pictures of a turn that is not begun, and what was heard."""
        rows, parts = self._rows[self._fed :], []
        if self._start is None:
            before = opening(self.content, any(shown.video is not None for shown in self._shown))
            self._start = context.mark()
            context.begin_turn(len(before))
            parts = [tuple(before), *spliced(self._halves()[0], None, self._tiles)]
        self._fed = len(self._rows)
        return [*parts, *rows]

    def _append(self, context: Context, parts: Sequence[Part]) -> Logits:
        wanted = sum(len(part) for part in parts)
        context.make_room(wanted)
        return context.append(parts)

    def _halves(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the turn before and behind the place of what is heard."""
        ids = self._model.prompt.user(self.content)
        place = ids.index(AUDIO_ID)
        return tuple(ids[:place]), tuple(ids[place + 1 :])
