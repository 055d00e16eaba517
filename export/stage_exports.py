"""Each stage of a checkpoint as a graph: its PyTorch module (or its bare weights) loaded, exported, let go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from sottovoce.export.checkpoint.names import MAIN_PREFIXES, Component
from sottovoce.export.checkpoint.reader import Checkpoint, check_finite
from sottovoce.export.dialects import Dialect
from sottovoce.export.graphs.audio_encoder import export_audio_encoder
from sottovoce.export.graphs.codec import export_codec
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.decoder_builder import TensorReader
from sottovoce.export.graphs.language_model import export_language_model
from sottovoce.export.graphs.speech_codes import export_speech_codes
from sottovoce.export.graphs.speech_text import export_speech_text
from sottovoce.export.graphs.vision_encoder import export_vision_encoder
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.export.modules.vision_encoder import VisionEncoder
from sottovoce.runtime.manifest import GraphSpec, StageName
from sottovoce.runtime.progress import Progress

Module = TypeVar("Module", bound=nn.Module)

COMPONENTS: Mapping[StageName, Component] = {
    "audio_encoder": "audio",
    "vision_encoder": "vision",
    "language_model": "language_model",
    "speech_text": "speech_decoder",
    "speech_codes": "speech_decoder",
    "codec": "codec",
}
"""Which component of a checkpoint a stage is made of."""


@dataclass(frozen=True)
class StageExporter:
    """Exports the stages of one checkpoint."""

    checkpoint: Checkpoint
    dialect: Dialect
    context_length: int
    progress: Progress

    def export(self, files: StageFiles) -> GraphSpec:
        """Write one stage's graph and weights; returns its contract.

        Raises:
            SottovoceError: a weight is not finite, or beyond float16.
            OSError: the disk is full or not writable.
        """
        config, stage = self.checkpoint.config, files.stage
        if stage == "language_model":
            read = self._reader("language_model", stage)
            return export_language_model(config.language_model, self.context_length, self.dialect, read, files)
        if stage == "speech_codes":
            read = self._reader("speech_decoder", stage)
            return export_speech_codes(config.speech_decoder, self.dialect, read, files)
        self.progress.step(f"exporting {stage}", 0, 1)
        spec = self._trace(files)
        self.progress.step(f"exporting {stage}", 1, 1)
        return spec

    def _trace(self, files: StageFiles) -> GraphSpec:
        config = self.checkpoint.config
        if files.stage == "audio_encoder":
            encoder = self._loaded(AudioEncoder(config.audio), "audio")
            return export_audio_encoder(encoder, config.audio, files)
        if files.stage == "vision_encoder":
            vision = self._loaded(VisionEncoder(config.vision), "vision")
            return export_vision_encoder(vision, config.vision, files)
        if files.stage == "speech_text":
            decoder = self._loaded(SpeechDecoder(config.speech_decoder), "speech_decoder")
            return export_speech_text(decoder, config.speech_decoder, files)
        return export_codec(self._loaded(CodecDecoder(config.codec), "codec"), config.codec, files)

    def _loaded(self, module: Module, component: Component) -> Module:
        """`module` in float32 with the checkpoint's weights."""
        read = _finite_reader(self.checkpoint, component)
        module.load_state_dict({name: read(name).float() for name in self.checkpoint.component_state(component)})
        return module.eval()

    def _reader(self, component: Component, stage: StageName) -> TensorReader:
        """Reads tensors one by one, each checked, and says how far it is."""
        read = _finite_reader(self.checkpoint, component)
        total = len(decoder_tensors(self.checkpoint, stage))
        done = 0

        def read_and_tell(name: str) -> Tensor:
            nonlocal done
            done += 1
            self.progress.step(f"exporting {stage}", done, total)
            return read(name)

        return read_and_tell


def decoder_tensors(checkpoint: Checkpoint, stage: StageName) -> list[str]:
    """Names of the tensors that become one decoder's graph: each is read once."""
    names = list(checkpoint.component_state(COMPONENTS[stage]))
    if stage == "speech_codes":
        return [name for name in names if not name.startswith(("embedding.", "layers_pre_nn."))]
    tied = checkpoint.config.language_model.tie_word_embeddings
    return [name for name in names if tied or name != "model.embed_tokens.weight"]


def stage_bytes(checkpoint: Checkpoint, stage: StageName, itemsize: int) -> int:
    """About how large a stage's weights will be."""
    state = checkpoint.component_state(COMPONENTS[stage])
    names = decoder_tensors(checkpoint, stage) if stage in ("language_model", "speech_codes") else list(state)
    if stage == "speech_text":
        names = [name for name in names if name.startswith("layers_pre_nn.")]
    return sum(itemsize * torch.Size(state.shape(name)).numel() for name in names)


def _finite_reader(checkpoint: Checkpoint, component: Component) -> TensorReader:
    state = checkpoint.component_state(component)

    def read(name: str) -> Tensor:
        tensor = state[name]
        check_finite(MAIN_PREFIXES.get(component, "") + name, tensor, state.file(name))
        return tensor

    return read
