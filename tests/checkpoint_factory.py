"""Writes checkpoints of the VITA-1.5 layout with any sizes and switches, and random weights, in under a second.

`write_checkpoint(folder, CheckpointRecipe())` is the smallest one; `static_chunks_config()` and `dataclasses.replace`
give the others. `read_config(folder)` must give back `recipe.config`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from checkpoint_configs import codec_json, small_config, static_chunks_config, train_yaml
from checkpoint_weights import Weights, random_weights
from safetensors.torch import save_file

from sottovoce.export.checkpoint.names import MAIN_PREFIXES, Component
from sottovoce.export.config import VitaConfig

__all__ = ["CheckpointRecipe", "small_config", "static_chunks_config", "write_checkpoint"]

TINY = Path(__file__).resolve().parent / "golden" / "tiny-vita15"
MAIN: tuple[Component, ...] = ("language_model", "vision", "audio")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CheckpointRecipe:
    """What to write: the sizes, and how the files are laid out."""

    config: VitaConfig = field(default_factory=small_config)
    seed: int = 0
    shards: int = 2
    """Safetensors files; 1 is a single `model.safetensors` with no index."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Storage of the main files."""
    speech_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Storage of the speech decoder's and the codec's `final.pt`."""
    component_names: Literal["relative", "hub", "absolute"] = "relative"
    """How `config.json` names the component folders."""
    cmvn_format: Literal["json", "kaldi"] = "json"
    cmvn_in_main: bool = True
    """Whether the main files hold the CMVN buffers, or only the `global_cmvn` file does."""
    wrap_decoder: bool = True
    """`final.pt` of the speech decoder as `{"model": …}` rather than the state dict itself."""
    component_weights: bool = False
    """Whether the vision and audio folders hold weights of their own (different ones: the main files must win)."""
    components_only: bool = False
    """Vision and audio weights in the component folders only (the projector stays in the main files)."""
    config_keys: dict[str, Any] = field(default_factory=dict)
    """More keys for `config.json`, or other values."""


def write_checkpoint(folder: Path, recipe: CheckpointRecipe | None = None) -> Path:
    """Write the checkpoint and return its folder (made if it is not there)."""
    recipe = recipe or CheckpointRecipe()
    folder.mkdir(parents=True, exist_ok=True)
    vision, audio = folder / "InternViT-300M-448px", folder / "audio-encoder-small"
    speech = folder / "vita_tts_ckpt"
    for part in (vision, audio, speech / "decoder", speech / "codec"):
        part.mkdir(parents=True, exist_ok=True)
    weights = {part: random_weights(recipe.config, part, recipe.seed) for part in MAIN}
    _write_language_model(folder, recipe)
    _write_vision(vision, recipe)
    _write_audio(audio, recipe, weights["audio"])
    _write_speech(speech, recipe)
    _write_component_weights(vision, audio, recipe, weights)
    _write_shards(folder, recipe, _main_weights(recipe, weights))
    return folder


def _main_weights(recipe: CheckpointRecipe, weights: dict[Component, Weights]) -> Weights:
    merged = {MAIN_PREFIXES[part] + name: array for part in MAIN for name, array in weights[part].items()}
    kept = merged
    if recipe.components_only:
        kept = {
            name: array
            for name, array in merged.items()
            if not name.startswith(("model.vision_tower.", "model.audio_encoder."))
        }
    if not recipe.cmvn_in_main:
        kept = {name: array for name, array in kept.items() if ".global_cmvn." not in name}
    return kept


def _write_shards(folder: Path, recipe: CheckpointRecipe, weights: Weights) -> None:
    tensors = {name: torch.from_numpy(array).to(DTYPES[recipe.dtype]) for name, array in weights.items()}
    if recipe.shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for number, chosen in enumerate(np.array_split(np.array(names), recipe.shards), start=1):
        file = f"model-{number:05d}-of-{recipe.shards:05d}.safetensors"
        save_file({str(name): tensors[str(name)] for name in chosen}, folder / file, metadata={"format": "pt"})
        weight_map |= {str(name): file for name in chosen}
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_component_weights(
    vision: Path, audio: Path, recipe: CheckpointRecipe, weights: dict[Component, Weights]
) -> None:
    if not (recipe.component_weights or recipe.components_only):
        return
    if not recipe.components_only:  # other values than the main files', which must win
        weights = {part: random_weights(recipe.config, part, recipe.seed + 1000) for part in MAIN}
    tower = "vision_tower.vision_tower."
    vision_tensors = {
        name.removeprefix(tower): torch.from_numpy(array)
        for name, array in weights["vision"].items()
        if name.startswith(tower)
    }
    save_file(vision_tensors, vision / "model.safetensors", metadata={"format": "pt"})
    torch.save({name: torch.from_numpy(array) for name, array in weights["audio"].items()}, audio / "final.pt")


def _write_language_model(folder: Path, recipe: CheckpointRecipe) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(TINY / name, folder / name)
        (folder / name).chmod(0o644)
    llm, prompts = recipe.config.language_model, recipe.config.audio.prompt_tokens
    naming = {"relative": "", "hub": "OpenGVLab/", "absolute": "/somewhere/else/"}[recipe.component_names]
    settings = {
        "architectures": ["VITAQwen2ForCausalLM"],
        "attention_dropout": llm.attention_dropout,
        "audio_prompt_finetune": prompts > 0,
        "audio_prompt_num": prompts or None,
        "bos_token_id": 553,
        "eos_token_id": 555,
        "freeze_audio_encoder": True,
        "hidden_act": "silu",
        "hidden_size": llm.hidden_size,
        "image_aspect_ratio": "pad" if recipe.config.pad_to_square else "square",
        "initializer_range": 0.02,
        "intermediate_size": llm.intermediate_size,
        "max_position_embeddings": llm.max_positions,
        "max_window_layers": llm.num_layers,
        "mm_audio_encoder": naming + "audio-encoder-small",
        "mm_hidden_size": recipe.config.vision.projector_input_size,
        "mm_projector_lr": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": naming + "InternViT-300M-448px",
        "model_type": "vita-Qwen2",
        "num_attention_heads": llm.num_heads,
        "num_hidden_layers": llm.num_layers,
        "num_key_value_heads": llm.num_kv_heads,
        "rms_norm_eps": llm.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": llm.rope_theta,
        "tie_word_embeddings": llm.tie_word_embeddings,
        "torch_dtype": recipe.dtype,
        "transformers_version": "4.45.2",
        "use_cache": True,
        "vocab_size": llm.vocab_size,
    }
    _write_json(folder / "config.json", settings | recipe.config_keys)
    stops = list(recipe.config.stop_ids)
    _write_json(folder / "generation_config.json", {"bos_token_id": 553, "eos_token_id": stops, "pad_token_id": 553})


def _write_vision(folder: Path, recipe: CheckpointRecipe) -> None:
    vision = recipe.config.vision
    settings = {
        "architectures": ["InternVisionModel"],
        "attention_dropout": vision.attention_dropout,
        "drop_path_rate": vision.drop_path_rate,
        "dropout": vision.dropout,
        "hidden_act": "gelu",
        "hidden_size": vision.hidden_size,
        "image_size": vision.image_size,
        "intermediate_size": vision.intermediate_size,
        "layer_norm_eps": vision.layer_norm_eps,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": vision.num_heads,
        "num_channels": vision.num_channels,
        "num_hidden_layers": vision.num_layers,
        "patch_size": vision.patch_size,
        "qk_normalization": False,
        "qkv_bias": vision.qkv_bias,
        "use_flash_attn": True,
    }
    _write_json(folder / "config.json", settings)
    pixels = {
        "crop_size": vision.image_size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(recipe.config.image_mean),
        "image_std": list(recipe.config.image_std),
        "resample": 3,
        "size": vision.image_size,
    }
    _write_json(folder / "preprocessor_config.json", pixels)


def _write_audio(folder: Path, recipe: CheckpointRecipe, weights: Weights) -> None:
    (folder / "train.yaml").write_text(yaml.safe_dump(train_yaml(recipe.config)), encoding="utf-8")
    count = 1000
    mean = weights["encoder.global_cmvn.mean"].astype(np.float64)
    variance = 1 / weights["encoder.global_cmvn.istd"].astype(np.float64) ** 2
    sums, squares = mean * count, (variance + mean**2) * count
    if recipe.cmvn_format == "json":
        _write_json(
            folder / "global_cmvn",
            {"mean_stat": sums.tolist(), "var_stat": squares.tolist(), "frame_num": count},
        )
        return
    rows = " ".join(map(repr, sums.tolist())), " ".join(map(repr, squares.tolist()))
    (folder / "global_cmvn").write_text(f" [\n  {rows[0]} {count}\n  {rows[1]} 0 ]\n", encoding="utf-8")
    settings = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8")) | {"is_json_cmvn": False}
    (folder / "train.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def _write_speech(folder: Path, recipe: CheckpointRecipe) -> None:
    speech, codec = recipe.config.speech_decoder, recipe.config.codec
    width = speech.hidden_size
    arguments = {
        "idim": width,
        "odim": speech.num_codes,
        "encoder_pre_norm_type": "ln",
        "encoder_drop_rate": 0.1,
        "encoder_criterion": "ce",
        "encoder_upsample_rate": 1,
        "kv_cache_prefix_finetune": 0,
        "encoder_layer_config": "transformer",
        "encoder_input_dim": width,
        "encoder_output_dim": width,
        "transformer_attention_dim": width,
        "transformer_attention_heads": speech.num_heads,
        "transformer_linear_units": speech.intermediate_size,
        "transformer_num_blocks": speech.num_code_layers,
        "transformer_dropout_rate": speech.dropout,
    }
    _write_json(folder / "decoder" / "model.json", [width, speech.num_codes, arguments])
    decoder = _tensors(recipe, "speech_decoder")
    torch.save({"model": decoder} if recipe.wrap_decoder else decoder, folder / "decoder" / "final.pt")
    _write_json(folder / "codec" / "model.json", codec_json(codec))
    state = _tensors(recipe, "codec")
    parts = {
        part: {name.removeprefix(f"{part}."): tensor for name, tensor in state.items() if name.startswith(f"{part}.")}
        for part in ("generator", "quantizer")
    }
    torch.save(parts, folder / "codec" / "final.pt")


def _tensors(recipe: CheckpointRecipe, component: Component) -> dict[str, torch.Tensor]:
    weights = random_weights(recipe.config, component, recipe.seed)
    return {name: torch.from_numpy(array).to(DTYPES[recipe.speech_dtype]) for name, array in weights.items()}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
