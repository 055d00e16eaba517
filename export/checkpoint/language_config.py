"""The language model's sizes from `config.json`, and when a reply ends from `generation_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.export.checkpoint.config_file import ConfigFile
from sottovoce.export.checkpoint.config_keys import PRETRAINED, VITA_TRAINING
from sottovoce.export.config import LanguageModelConfig

MODEL_TYPE = "vita-Qwen2"
ARCHITECTURE = "VITAQwen2ForCausalLM"


@dataclass(frozen=True)
class MainSettings:
    """What is read of `config.json`; defaults are those of transformers' Qwen2 configuration and of the release."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    mm_vision_tower: str
    mm_audio_encoder: str
    model_type: str = ""
    head_dim: int | None = None
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    hidden_act: str = "silu"
    use_sliding_window: bool = False
    layer_types: tuple[str, ...] | None = None
    tie_word_embeddings: bool = False
    attention_dropout: float = 0.0
    quantization_config: dict[str, Any] | None = None
    pruned_heads: dict[str, Any] | None = None
    mm_projector_type: str = "mlp2x_gelu"
    mm_hidden_size: int | None = None
    use_mm_proj: bool = True
    use_s2: bool = False
    image_aspect_ratio: str | None = None
    audio_prompt_finetune: bool = False
    audio_prompt_num: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Learned vectors in front of a recording's embeddings."""
        return (self.audio_prompt_num or 0) if self.audio_prompt_finetune else 0


def read_main_settings(file: ConfigFile) -> MainSettings:
    """Read and check `config.json`.

    Raises:
        CheckpointError: another model, unknown keys, or a switch that would change the computation.
    """
    data = file.read_json()
    if isinstance(data, Mapping):  # another model's keys are all unknown: say what it is first
        file.expect("model_type", data.get("model_type"), MODEL_TYPE)
        architectures = data.get("architectures")
        if architectures is not None:
            file.expect("architectures", architectures, [ARCHITECTURE])
    settings = file.section(MainSettings, data, accepted=PRETRAINED + VITA_TRAINING)
    _refuse_variants(file, settings)
    _check_sizes(file, settings)
    return settings


def language_model_config(file: ConfigFile, settings: MainSettings) -> LanguageModelConfig:
    """The language model's sizes.

    Raises:
        CheckpointError: rotary settings that are not the plain ones.
    """
    return LanguageModelConfig(
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_layers=settings.num_hidden_layers,
        num_heads=settings.num_attention_heads,
        num_kv_heads=settings.num_key_value_heads,
        head_size=settings.head_dim or settings.hidden_size // settings.num_attention_heads,
        vocab_size=settings.vocab_size,
        max_positions=settings.max_position_embeddings,
        rms_norm_eps=settings.rms_norm_eps,
        rope_theta=_rope_theta(file, settings),
        tie_word_embeddings=settings.tie_word_embeddings,
        attention_dropout=settings.attention_dropout,
    )


def read_stop_ids(file: ConfigFile, settings: MainSettings, main: ConfigFile) -> tuple[int, ...]:
    """Ids that end a reply, from `generation_config.json`, or from `config.json` where that says nothing.

    Raises:
        CheckpointError: no id in either file, or ids outside the vocabulary.
    """
    source, found = main, settings.eos_token_id
    if file.path.exists():
        data = file.read_json()
        if not isinstance(data, Mapping):
            raise file.error("the top level is not an object")
        if data.get("eos_token_id") is not None:
            source, found = file, data["eos_token_id"]
    if found is None:
        raise source.error("no eos_token_id", fix="add the id, or the list of ids, that ends a reply")
    ids = tuple(found) if isinstance(found, (list, tuple)) else (found,)
    if not ids:
        raise source.error("eos_token_id is an empty list, expected at least one id")
    for value in ids:
        if not isinstance(value, int) or isinstance(value, bool):
            raise source.error(f"eos_token_id is {found!r}, expected an id or a list of ids")
        source.within("eos_token_id", value, 0, settings.vocab_size - 1)
    return tuple(dict.fromkeys(ids))


def _refuse_variants(file: ConfigFile, settings: MainSettings) -> None:
    file.expect("hidden_act", settings.hidden_act, "silu")
    file.expect("use_sliding_window", settings.use_sliding_window, False)
    file.expect("mm_projector_type", settings.mm_projector_type, "mlp2x_gelu")
    file.expect("use_mm_proj", settings.use_mm_proj, True)
    file.expect("use_s2", settings.use_s2, False, why="pictures are tiled, not scaled")
    file.expect("pruned_heads", settings.pruned_heads or None, None)
    file.expect("quantization_config", settings.quantization_config or None, None, why="weights must be floats")
    for kind in settings.layer_types or ():
        file.expect("layer_types", kind, "full_attention")


def _check_sizes(file: ConfigFile, settings: MainSettings) -> None:
    file.within("hidden_size", settings.hidden_size, 8, 65536)
    file.within("intermediate_size", settings.intermediate_size, 1, 1 << 18)
    file.within("num_hidden_layers", settings.num_hidden_layers, 1, 512)
    file.within("num_attention_heads", settings.num_attention_heads, 1, 1024)
    file.within("num_key_value_heads", settings.num_key_value_heads, 1, settings.num_attention_heads)
    file.within("vocab_size", settings.vocab_size, 1, 1 << 21)
    file.within("max_position_embeddings", settings.max_position_embeddings, 1, 1 << 24)
    file.within("rms_norm_eps", settings.rms_norm_eps, 0, 1)
    if settings.layer_types is not None:
        file.agree(
            "the length of layer_types", len(settings.layer_types), "num_hidden_layers", settings.num_hidden_layers
        )
    if settings.num_attention_heads % settings.num_key_value_heads:
        raise file.error(
            f"num_attention_heads is {settings.num_attention_heads}, expected a multiple of num_key_value_heads, "
            f"{settings.num_key_value_heads}"
        )
    if settings.head_dim is None and settings.hidden_size % settings.num_attention_heads:
        raise file.error(
            f"hidden_size is {settings.hidden_size}, expected a multiple of num_attention_heads, "
            f"{settings.num_attention_heads}"
        )
    head_size = settings.head_dim or settings.hidden_size // settings.num_attention_heads
    file.within("head_dim", head_size, 2, 1024)
    file.expect("head_dim % 2", head_size % 2, 0, why="rotary embeddings turn pairs")
    if settings.audio_prompt_finetune:
        file.within("audio_prompt_num", settings.audio_prompt_num or 0, 1, 4096)


def _rope_theta(file: ConfigFile, settings: MainSettings) -> float:
    """From `rope_theta`, or from `rope_parameters` where transformers 5 wrote the file."""
    theta = settings.rope_theta
    for key, group in (("rope_scaling", settings.rope_scaling), ("rope_parameters", settings.rope_parameters)):
        for name, value in (group or {}).items():
            if name in ("type", "rope_type"):
                file.expect(f"{key}.{name}", value, "default", why="positions are not rescaled")
            elif name == "rope_theta" and isinstance(value, (int, float)) and not isinstance(value, bool):
                theta = float(value) if theta is None else theta
                file.agree(f"{key}.rope_theta", float(value), "rope_theta", theta)
            else:
                raise file.error(f"{key}.{name} is {value!r}, expected plain rotary positions", fix=f"remove {key!r}")
    theta = 10000.0 if theta is None else theta
    file.within("rope_theta", theta, 1, 1e12)
    return theta
