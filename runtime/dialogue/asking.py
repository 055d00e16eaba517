"""A question that is there as a whole, put into the context behind what was said before."""

from __future__ import annotations

from collections.abc import Sequence

from sottovoce.runtime.dialogue.context import Context, Logits
from sottovoce.runtime.dialogue.turns import Place
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.question import Question, parts_of, prepare
from sottovoce.runtime.tensor_dump import TensorDump
from sottovoce.runtime.text.prompt import UserContent


class Asking:
    """Frames user turns.

    Args:
        model: the bundle's stages.
        context: where they go.
        system: the system text; None takes the bundle's own for the kind of the first question.
    """

    def __init__(self, model: Model, context: Context, system: str | None) -> None:
        self._model = model
        self._context = context
        self._system = system

    def read(
        self, place: Place, question: Question, stopwatch: Stopwatch, dump: TensorDump | None
    ) -> tuple[Logits, UserContent]:
        """Append the question → (V,) logits of the reply's first token, and what the turn is made of.

        Raises:
            InputError: an input cannot be taken, or does not fit into the context even when old turns are forgotten.
            BackendError: the engine failed.
        """
        model = self._model
        prepared = prepare(question, model.manifest, stopwatch)
        opening = self.opening(place, prepared.content, prepared.has_video)
        ids = [*opening, *model.prompt.user(prepared.content)]
        self._check_room(prepared.positions(ids, model.manifest))
        parts = parts_of(ids, prepared, model, stopwatch, dump)
        self._context.begin_turn(len(opening))
        with stopwatch.measure("prefill"):
            return self._context.append(parts), prepared.content

    def opening(self, place: Place, content: UserContent, has_video: bool) -> list[int]:
        """What comes before a user's turn: the system text, or the end of the last reply."""
        prompt = self._model.prompt
        if place.end.position == 0:
            images = content.tiles > 0 and not has_video
            own = prompt.system_text(images=images, video=has_video)
            return prompt.system(own if self._system is None else self._system)
        return [*place.unfed, *prompt.tokenizer.encode(prompt.spec.turn_end), *prompt.after_reply()]

    def _check_room(self, positions: int) -> None:
        self._context.make_room(positions + 1)
        used, limit = self._context.length, self._context.limit
        if used + positions >= limit:
            before = f" after {used} of the conversation" if used else ""
            message = f"the question fills {positions} positions{before}; the model's context holds {limit}"
            fix = "start a new conversation" if used else "ask with less text, fewer pictures or a shorter recording"
            raise InputError(message, fix=fix)


def with_shown(question: Question, shown: Sequence[Question]) -> Question:
    """A question with the pictures and the clip that were shown before it.

    Raises:
        InputError: pictures and a clip go together.
    """
    if not shown:
        return question
    video = next((one.video for one in (question, *shown) if one.video is not None), None)
    images = [image for one in (*shown, question) for image in one.images]
    return Question(question.text, question.audio, images, video)
