"""Writes checkpoints of the VITA-1.5 layout with any sizes and switches, and random weights, in under a second.

`write_checkpoint(folder, CheckpointRecipe())` is the smallest one; `static_chunks_config()` and `dataclasses.replace`
give the others. `read_config(folder)` must give back `recipe.config`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from checkpoint_weights import Weights, random_weights
from safetensors.torch import save_file
from sottovoce.export.checkpoint_names import MAIN_PREFIXES, Component
from sottovoce.export.config import (
    AdapterConfig,
    AudioEncoderConfig,
    CodecConfig,
    LanguageModelConfig,
    SpeechDecoderConfig,
    VisionEncoderConfig,
    VitaConfig,
)

TINY = Path(__file__).resolve().parent / "golden" / "tiny-vita15"
STOP_IDS = (555, 553)
CLIP_MEAN, CLIP_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAIN: tuple[Component, ...] = ("language_model", "vision", "audio")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def small_config() -> VitaConfig:
    """The least of everything: LayerNorm and GELU in the adapter, full attention, residual blocks of type 1."""
    llm = LanguageModelConfig(
        hidden_size=96, intermediate_size=160, num_layers=2, num_heads=6, num_kv_heads=2, head_size=16,
        vocab_size=640, max_positions=4096,
    )  # fmt: skip
    vision = VisionEncoderConfig(
        hidden_size=48, intermediate_size=96, num_layers=2, num_heads=3, patch_size=14, image_size=112,
        llm_hidden_size=96,
    )  # fmt: skip
    adapter = AdapterConfig("subsampling", 48, 96, kernel_size=5, norm="layer", activation="gelu")
    audio = AudioEncoderConfig(
        mel_bins=80, subsampling_size=48, attention_size=48, num_heads=3, linear_units=112, num_blocks=2,
        adapter=adapter,
    )  # fmt: skip
    speech = SpeechDecoderConfig(
        hidden_size=32, num_heads=4, intermediate_size=80, num_code_layers=2, num_codes=48, dropout=0.1
    )
    codec = CodecConfig(
        num_codes=48, upsample_rates=(5, 4, 3), upsample_kernel_sizes=(11, 8, 5), upsample_initial_channel=256,
        resblock_kind="1", resblock_kernel_sizes=(3, 5), resblock_dilation_sizes=((1, 3), (1, 3)),
        global_tokens=(3, 1, 4, 1),
    )  # fmt: skip
    return VitaConfig(
        language_model=llm, vision=vision, audio=audio, speech_decoder=speech, codec=codec, stop_ids=STOP_IDS,
        image_mean=CLIP_MEAN, image_std=CLIP_STD, pad_to_square=False, sample_rate=16000, frame_length_ms=25.0,
        frame_shift_ms=10.0,
    )  # fmt: skip


def static_chunks_config() -> VitaConfig:
    """Everything else than in the tiny checkpoint: static chunks, BatchNorm, ReLU, residual blocks of type 2, sizes."""
    small = small_config()
    adapter = AdapterConfig("subsampling", 40, 160, kernel_size=3, norm="batch", activation="relu")
    audio = AudioEncoderConfig(
        mel_bins=64, subsampling_size=32, attention_size=40, num_heads=5, linear_units=96, num_blocks=3,
        adapter=adapter, chunk_size=4, left_chunks=2,
    )  # fmt: skip
    llm = replace(
        small.language_model, hidden_size=160, num_layers=3, num_heads=5, num_kv_heads=1, head_size=32,
        vocab_size=704, rope_theta=5e5, rms_norm_eps=1e-5,
    )  # fmt: skip
    vision = replace(small.vision, llm_hidden_size=160, num_layers=3, image_size=224, num_heads=4)
    codec = CodecConfig(
        num_codes=80, upsample_rates=(6, 5, 2, 2), upsample_kernel_sizes=(12, 11, 4, 4), upsample_initial_channel=128,
        resblock_kind="2", resblock_kernel_sizes=(3, 5, 7), resblock_dilation_sizes=((1, 3), (1, 2), (2, 6)),
        global_tokens=(7, 70),
    )  # fmt: skip
    speech = SpeechDecoderConfig(
        hidden_size=40, num_heads=5, intermediate_size=72, num_code_layers=3, num_codes=80, dropout=0.1
    )
    return replace(small, audio=audio, language_model=llm, vision=vision, codec=codec, speech_decoder=speech)


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


def train_yaml(config: VitaConfig) -> dict[str, Any]:
    """The audio encoder's `train.yaml`."""
    audio, adapter = config.audio, config.audio.adapter
    transformer = {
        "attention-dim": audio.attention_size,
        "attention-dropout-rate": audio.attention_dropout,
        "attention-heads": audio.num_heads,
        "chunk_size": audio.chunk_size,
        "concat-after": False,
        "dropout-rate": audio.dropout,
        "dynamic-chunks": False,
        "input-dim": audio.subsampling_size,
        "input-layer": "linear",
        "left_chunks": audio.left_chunks,
        "linear-units": audio.linear_units,
        "normalize-before": True,
        "num-blocks": audio.num_blocks,
        "output-dim": audio.attention_size,
        "pos-enc-class": "rel-enc",
        "positional-dropout-rate": audio.positional_dropout,
        "positionwise-layer-type": "linear",
    }
    subsampling = {
        "dropout-rate": audio.subsampling_dropout,
        "input-dim": audio.mel_bins,
        "output-dim": audio.subsampling_size,
        "rate": 4,
    }
    return {
        "dataset_conf": {
            "fbank_conf": {
                "dither": 0.0,
                "frame_length": config.frame_length_ms,
                "frame_shift": config.frame_shift_ms,
                "num_mel_bins": audio.mel_bins,
            },
            "resample_conf": {"resample_rate": config.sample_rate},
        },
        "encoder_conf": {
            "overview_conf": {
                "encoder-input-dim": audio.mel_bins,
                "encoder-layer-config": "subsampling-transformer",
                "encoder-output-dim": audio.attention_size,
            },
            "para_conf": {
                "subsampling": {f"subsampling-{key}": value for key, value in subsampling.items()},
                "transformer": {f"transformer-{key}": value for key, value in transformer.items()},
            },
        },
        "input_dim": audio.mel_bins,
        "is_json_cmvn": True,
        "model_conf": {
            "activation_func": adapter.activation,
            "add_audio_bos_eos": False,
            "adpter_type": adapter.kind,
            "enc_out_dim": adapter.encoder_size,
            "freeze_adpter": True,
            "freeze_encoder": True,
            "kernel_size": adapter.kernel_size,
            "llm_embed_dim": adapter.llm_hidden_size,
            "llm_path": "Qwen2.5-7B-Instruct",
            "norm": adapter.norm,
            "task_num": 10,
        },
    }


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


def codec_json(codec: CodecConfig) -> dict[str, Any]:
    """The codec's `model.json`."""
    return {
        "resblock": codec.resblock_kind,
        "upsample_rates": list(codec.upsample_rates),
        "upsample_kernel_sizes": list(codec.upsample_kernel_sizes),
        "upsample_initial_channel": codec.upsample_initial_channel,
        "resblock_kernel_sizes": list(codec.resblock_kernel_sizes),
        "resblock_dilation_sizes": [list(dilations) for dilations in codec.resblock_dilation_sizes],
        "sampling_rate": codec.sample_rate,
        "n_code_groups": codec.code_groups,
        "residul_layer": codec.residual_layers,
        "n_codes": codec.num_codes,
        "codebook_loss_lambda": 1.0,
        "commitment_loss_lambda": 0.25,
        "global_code_num": len(codec.global_tokens),
        "global_feature_conv": [128, 64, 128, 3, 1],
        "global_tokens": list(codec.global_tokens),
        "learning_rate": 0.0005,
        "segment_size": 24000,
    }


def _tensors(recipe: CheckpointRecipe, component: Component) -> dict[str, torch.Tensor]:
    weights = random_weights(recipe.config, component, recipe.seed)
    return {name: torch.from_numpy(array).to(DTYPES[recipe.speech_dtype]) for name, array in weights.items()}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
