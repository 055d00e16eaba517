"""Random weights whose activations stay near one and whose greedy choices are clear.

Plain rules over names and shapes, with no PyTorch module in sight, so that what is tested did not also make its input.
"""

from __future__ import annotations

import math

import numpy as np

from sottovoce.export.checkpoint.names import Component, expected_tensors
from sottovoce.export.config import VitaConfig

LOGIT_GAIN = 4.0
"""Standard deviation of logits: the best two of a few hundred then differ by about one."""

Weights = dict[str, np.ndarray]


def random_weights(config: VitaConfig, component: Component, seed: int) -> Weights:
    """One component's tensors, float32, names as in the component's own table."""
    generator = np.random.default_rng([seed, sum(map(ord, component))])
    return {
        name: _draw(generator, name, shape, config).astype(np.float32)
        for name, shape in expected_tensors(config, component).items()
    }


def _draw(generator: np.random.Generator, name: str, shape: tuple[int, ...], config: VitaConfig) -> np.ndarray:
    noise = generator.standard_normal(shape)
    if name.startswith("generator."):
        return _codec_convolution(noise, name, config)
    if name.startswith("quantizer."):
        return noise
    if name.endswith(_EMBEDDINGS) and "patch_embedding" not in name:
        return _embedding(noise, name, config)
    if len(shape) == 1:
        return _vector(noise, name)
    rows = noise * _gain(name, config) / math.sqrt(np.prod(shape[1:]))
    return _quiet_stops(rows, config) if name == "lm_head.weight" else rows


def _vector(noise: np.ndarray, name: str) -> np.ndarray:
    """Biases, norms' weights, layer scales and statistics."""
    if name == "out_fnn.bias":
        noise[-4:] = -2 * LOGIT_GAIN  # the end is a rare choice, so that there is something to hear
        return noise
    centre, spread = next((rule for ending, rule in _VECTORS.items() if name.endswith(ending)), (0.0, 0.1))
    return np.exp(0.3 * noise) if name.endswith("running_var") else centre + spread * noise


_EMBEDDINGS = ("embed_tokens.weight", "embedding", "embedding.weight", "prompt_embeddings.weight")

_VECTORS = {
    "global_cmvn.mean": (10.0, 1.0),
    "global_cmvn.istd": (0.25, 0.02),
    ".ls1": (0.5, 0.1),
    ".ls2": (0.5, 0.1),
    "weight": (1.0, 0.1),
}
"""Ending of a name → centre and standard deviation."""


def _gain(name: str, config: VitaConfig) -> float:
    """Standard deviation of a linear's or convolution's output for inputs near one."""
    if name in ("out_fnn.weight", "lm_head.weight"):
        return LOGIT_GAIN
    if ".core.conv." in name or "adpter.conv" in name:
        return math.sqrt(2)  # followed by ReLU
    if "encoder.enc.1.encoders." in name and name.endswith(("linear_out.weight", "w_2.weight")):
        return math.sqrt(config.audio.attention_size) / 4  # the residual stream is scaled by sqrt(d)
    return 1.0


def _embedding(noise: np.ndarray, name: str, config: VitaConfig) -> np.ndarray:
    if name == "model.embed_tokens.weight" and config.language_model.tie_word_embeddings:
        # Half as clear: a stronger table would make every token the best follower of itself.
        return _quiet_stops(noise * LOGIT_GAIN / 2 / math.sqrt(noise.shape[-1]), config)
    return 0.3 * noise if "position" in name else noise


def _quiet_stops(rows: np.ndarray, config: VitaConfig) -> np.ndarray:
    """Stop tokens get small logits: a reply of random weights would else end at once."""
    rows[list(config.stop_ids)] *= 0.25
    return rows


def _codec_convolution(noise: np.ndarray, name: str, config: VitaConfig) -> np.ndarray:
    if name.endswith("weight_v"):
        return noise
    if name.endswith("bias"):
        return 0.05 * noise
    spread = np.exp(0.1 * noise)
    if ".ups." in name:
        stage = int(name.split(".")[2])
        return spread * math.sqrt(config.codec.upsample_rates[stage] / 2) * 1.3
    return spread * (0.4 if ".resblocks." in name or "conv_post" in name else 1.0)
