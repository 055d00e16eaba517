"""What it costs when one layer alone is as planned and all else stays in floating point.

The mean KL divergence of the next token is the measure for every layer that text goes through, encoders included (as in
ZeroQ, Cai et al. 2020, https://arxiv.org/abs/2001.00281). One unit for all of them is what makes one order of them; and
each token counts with all its alternatives, where right and wrong replies would need hundreds of conversations to tell
two layers apart. Stages that only speak have no part in it: for them it is the relative squared error of the stage's
output on inputs that were recorded, which orders a stage's layers, but not against those of another stage.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np

from sottovoce.calibration.divergence.stage_calls import StageCall, StageInputs, record_calls
from sottovoce.calibration.divergence.stage_replay import StageReplay, replaying
from sottovoce.calibration.quantization.quantize import QuantizeJob
from sottovoce.calibration.quantization.stage_quantizer import StageQuantizer
from sottovoce.calibration.sensitivity.layers import Layer
from sottovoce.calibration.sensitivity.report import LayerSensitivity
from sottovoce.calibration.sensitivity.teacher import Conversations, Teacher
from sottovoce.calibration.sensitivity.teacher_forcing import Floats
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import GraphSpec, StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.progress import Progress

MOST_POSITIONS = 1024
"""Predicted tokens that layers are ranked on."""


class LayerMeter:
    """Measures layers one after the other; what it compares with is computed when it is first needed.

    Args:
        job: what is to be made of which bundle.
        data: the held-back conversations; in its scratch folder must be room for a stage.
        progress: told of the original's answers.
    """

    def __init__(self, job: QuantizeJob, data: Conversations, progress: Progress) -> None:
        self._job, self._data, self._progress = job, data, progress
        self._model = Model(job.source)
        self._teacher: Teacher | None = None
        self._calls: dict[StageName, list[StageCall]] | None = None

    def measure(self, layer: Layer, others: Sequence[str]) -> LayerSensitivity:
        """The layer's sensitivity.

        Args:
            layer: what becomes integers.
            others: the other weights of its stage.

        Raises:
            InputError: no conversation goes through the stage.
        """
        if layer.speaks:
            calls = self._recorded(layer.stage)
            with self._only(layer, others) as session:
                error = self._relative_error(calls, layer.stage, session)
            return LayerSensitivity(layer.stage, layer.name, "relative_error", error)
        teacher = self._heard(layer.stage)
        with self._only(layer, others) as session:
            divergence = teacher.divergence_of(with_stage(self._model, layer.stage, session), layer.stage)
        return LayerSensitivity(layer.stage, layer.name, "kl", divergence)

    def close(self) -> None:
        """Release the original's graphs."""
        self._model.close()

    @contextmanager
    def _only(self, layer: Layer, others: Sequence[str]) -> Iterator[OnnxRuntimeSession]:
        """The stage with this one layer as planned, its cache as it is."""
        folder, plan = self._data.scratch / "layer", self._job.plan.stages[layer.stage]
        shutil.rmtree(folder, ignore_errors=True)
        try:
            kept = dict.fromkeys(others, "another layer")
            spec = StageQuantizer(self._job.source, layer.stage, plan, self._job.ranges, kept).write(folder)
            session = OnnxRuntimeSession(layer.stage, spec, folder / spec.file)
            try:
                yield session
            finally:
                session.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _heard(self, stage: StageName) -> Teacher:
        if self._teacher is None:
            self._teacher = Teacher(self._model, self._data, MOST_POSITIONS)
            self._teacher.listen(self._progress)
        if not self._teacher.uses(stage):
            missing = "recording" if stage == "audio_encoder" else "picture or clip"
            raise InputError(
                f"there is no {missing} in the {len(self._teacher.conversations)} conversations that layers are "
                f"measured on, so nothing can be said of the stage {stage!r}",
                file=self._data.folder,
                fix="add conversations that use it, or leave the stage out of --precision",
            )
        return self._teacher

    def _recorded(self, stage: StageName) -> list[StageCall]:
        if self._calls is None:
            self._calls = record_calls(self._job.source, StageInputs(self._data.folder), self._progress)
        return self._calls[stage]

    def _relative_error(self, calls: Sequence[StageCall], stage: StageName, session: OnnxRuntimeSession) -> float:
        error = power = 0.0
        with replaying(self._job.source, stage) as original:
            changed = StageReplay(session)
            for call in calls:
                expected, found = _result(original, call, session.spec), _result(changed, call, session.spec)
                error += float(np.square(found - expected, dtype=np.float64).sum())
                power += float(np.square(expected, dtype=np.float64).sum())
        return error / power if power else 0.0


def with_stage(model: Model, stage: StageName, session: Session) -> Model:
    """The model with another graph for one stage; the others are shared with it, so it must not be closed."""

    def open_stage(wanted: StageName) -> Session:
        return session if wanted == stage else model.session(wanted)

    return Model(model.bundle, open_stage=open_stage)


def _result(replay: StageReplay, call: StageCall, spec: GraphSpec) -> Floats:
    """A stage's one result that is no cache."""
    [output] = [tensor for tensor in spec.outputs if not tensor.role.startswith("present_")]
    return cast("Floats", replay.run(call)[output.name])
