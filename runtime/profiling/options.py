"""What a profile is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import STAGES
from sottovoce.runtime.profiling.context_speed import CONTEXTS

DEFAULT_QUESTION = "What is the capital of France?"


@dataclass(frozen=True)
class ProfileOptions:
    """How to profile a bundle.

    Args:
        text: a typed question; with nothing else asked, `DEFAULT_QUESTION`.
        audio: a recorded one.
        images: pictures.
        backend: the inference engine; "auto" for the best that is there.
        threads: CPU cores to use; None for all that this process may use.
        require_engine: fail where a TensorRT engine cannot be used.
        runs: turns to measure.
        warm_up: turns before that.
        contexts: lengths of context at which the language model is measured; those that do not fit are left out.
        max_new_tokens: a reply ends after so many; None: as the bundle says.
        seed: of what is drawn in every turn.
        speech: False for text alone.
        layers: whether to look inside the graphs, which loads each a second time.
        stages: what to report of; none: all.

    Raises:
        InputError: a number that makes no profile, or an unknown stage.
    """

    text: str | None = None
    audio: Path | None = None
    images: Sequence[Path] = ()
    backend: str = "auto"
    threads: int | None = None
    require_engine: bool = False
    runs: int = 10
    warm_up: int = 2
    contexts: tuple[int, ...] = CONTEXTS
    max_new_tokens: int | None = None
    seed: int = 0
    speech: bool = True
    layers: bool = True
    stages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise InputError(f"runs is {self.runs}: nothing would be measured", fix="choose 1 or more; 10 tell more")
        if self.warm_up < 0:
            raise InputError(f"warm_up is {self.warm_up}", fix="choose 0 or more")
        if any(context < 2 for context in self.contexts):
            raise InputError(f"contexts are {self.contexts}, expected 2 positions or more each")
        unknown = [stage for stage in self.stages if stage not in STAGES]
        if unknown:
            raise InputError(f"there is no stage {unknown[0]!r}", fix=f"choose among: {', '.join(STAGES)}")

    @property
    def question_text(self) -> str | None:
        """What is typed in each turn."""
        return self.text or (None if self.audio or self.images else DEFAULT_QUESTION)
