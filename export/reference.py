"""The PyTorch side of a comparison: one stage of a checkpoint at a time, loaded, run in fp32, and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sottovoce.export.checkpoint.reader import Checkpoint, ComponentState
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.modules.language_model import causal_mask, layer_config
from sottovoce.export.modules.llama_layer import LlamaLayer, RmsNorm, Rotary
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.export.modules.vision_encoder import VisionEncoder
from sottovoce.runtime.speech.stream import Step

Floats = npt.NDArray[np.float32]
HEAD_ROWS = 16_384
"""The head is applied in slices of so many vocabulary rows, so that a 150,000-row table is never whole in fp32."""


class Reference:
    """What the checkpoint computes, stage by stage. Arrays in and out, fp32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._config = checkpoint.config

    @torch.no_grad()
    def audio_embeddings(self, features: Floats) -> Floats:
        """Filterbank (frames, mel) → (tokens, D)."""
        encoder = _loaded(AudioEncoder(self._config.audio), self._checkpoint.component_state("audio"))
        return _array(encoder(torch.from_numpy(features)[None])[0][0])

    @torch.no_grad()
    def image_embeddings(self, pixels: Floats) -> Floats:
        """(tiles, 3, S, S) → (tiles, tokens, D), tile after tile."""
        encoder = _loaded(VisionEncoder(self._config.vision), self._checkpoint.component_state("vision"))
        return np.concatenate([_array(encoder(torch.from_numpy(tile)[None])) for tile in pixels])

    def token_embeddings(self, ids: list[int]) -> Floats:
        """Rows (n, D) of the language model's input table."""
        table = self._checkpoint.component_state("language_model")["model.embed_tokens.weight"]
        return _array(table[torch.tensor(ids)].float())

    @torch.no_grad()
    def language_model_logits(self, embeddings: Floats, last: int) -> Floats:
        """(T, D) → logits (last, V) of the last places.

        One layer is in memory at a time, so a model of any size can be checked.
        """
        config = self._config.language_model
        state = self._checkpoint.component_state("language_model")
        hidden = torch.from_numpy(embeddings)[None]
        positions = torch.arange(hidden.shape[1])[None]
        rotary = Rotary.at(positions, config.head_size, config.rope_theta, torch.float32)
        mask = causal_mask(0, hidden.shape[1], hidden.device)
        for index in range(config.num_layers):
            layer = _loaded(LlamaLayer(layer_config(config)), state, f"model.layers.{index}.")
            hidden = layer(hidden, rotary, mask)
        norm = _loaded(RmsNorm(config.hidden_size, config.rms_norm_eps), state, "model.norm.")
        hidden = norm(hidden[0, -last:])
        head = state["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
        slices = [hidden @ head[start : start + HEAD_ROWS].float().T for start in range(0, len(head), HEAD_ROWS)]
        return _array(torch.cat(slices, dim=-1))

    @torch.no_grad()
    def conditioned_frames(self, frames: Floats) -> Floats:
        """The speech decoder's NAR part: (n, d) → (n, d)."""
        return _array(self._speech_decoder().condition(torch.from_numpy(frames)[None])[0])

    @torch.no_grad()
    def code_logits(self, frames: Floats, codes: list[int]) -> Floats:
        """Teacher-forced logits (len(codes) + 1, V + 4) for text frames (n, d)."""
        logits = self._speech_decoder()(torch.from_numpy(frames)[None], None, torch.tensor([codes]), None)
        return _array(logits[0])

    @torch.no_grad()
    def waveform(self, steps: Sequence[Step]) -> Floats:
        """Codes (n,), or tuples of them where a time step has several → samples."""
        codec = CodecDecoder(self._config.codec)
        codec.load_released_state(dict(self._checkpoint.component_state("codec")))
        return _array(codec.eval()(torch.tensor(steps)[None])[0])

    def _speech_decoder(self) -> SpeechDecoder:
        decoder = SpeechDecoder(self._config.speech_decoder)
        _loaded(decoder, self._checkpoint.component_state("speech_decoder"))
        return decoder


def _loaded(module: Any, state: ComponentState, prefix: str = "") -> Any:
    """`module` with the tensors of `state` below `prefix`, in fp32 and evaluation mode."""
    assert isinstance(module, nn.Module)  # noqa: S101  # for the type checker: every caller builds one
    names = [name for name in state if name.startswith(prefix)]
    module.load_state_dict({name[len(prefix) :]: state[name].float() for name in names})
    return module.eval()


def _array(tensor: Tensor) -> Floats:
    return np.asarray(tensor.numpy(), dtype=np.float32)
