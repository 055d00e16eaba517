"""The audio encoder's settings from its wenet-style `train.yaml`.

Defaults where keys are missing are those of the release's argument parsers. They pass over keys that they do not know;
here such a key is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from sottovoce.export.checkpoint.config_file import ConfigFile
from sottovoce.export.checkpoint.config_keys import AUDIO_MODEL_TRAINING, WENET_DATASET, WENET_TRAINING
from sottovoce.export.checkpoint.language_config import MainSettings
from sottovoce.export.config import AdapterConfig, AudioEncoderConfig

LAYERS = "subsampling-transformer"
ENCODER, DATASET = "encoder_conf.para_conf", "dataset_conf"


@dataclass(frozen=True)
class TopSection:
    """The whole file."""

    input_dim: int
    encoder_conf: dict[str, Any]
    model_conf: dict[str, Any]
    dataset_conf: dict[str, Any] = field(default_factory=dict)
    is_json_cmvn: bool = False


@dataclass(frozen=True)
class EncoderSection:
    """`encoder_conf`."""

    overview_conf: dict[str, Any]
    para_conf: dict[str, Any]


@dataclass(frozen=True)
class OverviewSection:
    """`encoder_conf.overview_conf`."""

    encoder_layer_config: str = "tdnn-dtc"
    encoder_input_dim: int = 256
    encoder_output_dim: int = 256


@dataclass(frozen=True)
class ParametersSection:
    """`encoder_conf.para_conf`."""

    subsampling: dict[str, Any]
    transformer: dict[str, Any]


@dataclass(frozen=True)
class SubsamplingSection:
    """`encoder_conf.para_conf.subsampling`."""

    subsampling_rate: int = 4
    subsampling_input_dim: int = 256
    subsampling_output_dim: int = 256
    subsampling_dropout_rate: float = 0.1


@dataclass(frozen=True)
class TransformerSection:
    """`encoder_conf.para_conf.transformer`."""

    transformer_input_dim: int = 256
    transformer_output_dim: int = 4
    transformer_attention_dim: int = 256
    transformer_attention_heads: int = 4
    transformer_linear_units: int = 1024
    transformer_num_blocks: int = 6
    transformer_dropout_rate: float = 0.1
    transformer_attention_dropout_rate: float = 0.0
    transformer_positional_dropout_rate: float = 0.1
    transformer_input_layer: str = "linear"
    transformer_pos_enc_class: str = "abs-enc"
    transformer_normalize_before: bool = True
    transformer_concat_after: bool = False
    transformer_positionwise_layer_type: str = "linear"
    transformer_positionwise_conv_kernel_size: int = 1
    transformer_chunk_size: int = -1
    transformer_left_chunks: int = -1
    transformer_dynamic_chunks: bool = True


@dataclass(frozen=True)
class ModelSection:
    """`model_conf`."""

    enc_out_dim: int = 512
    llm_embed_dim: int = 4096
    kernel_size: int = 3
    adpter_type: str = "cnn"
    activation_func: str = "relu"
    norm: str = "batch"
    add_audio_bos_eos: bool = False


@dataclass(frozen=True)
class DatasetSection:
    """`dataset_conf`."""

    fbank_conf: dict[str, Any] = field(default_factory=dict)
    resample_conf: dict[str, Any] = field(default_factory=dict)
    feats_type: str = "fbank"


@dataclass(frozen=True)
class FbankSection:
    """`dataset_conf.fbank_conf`: lengths in milliseconds."""

    num_mel_bins: int = 80
    frame_length: float = 25.0
    frame_shift: float = 10.0
    dither: float = 0.0


@dataclass(frozen=True)
class ResampleSection:
    """`dataset_conf.resample_conf`: Hz."""

    resample_rate: int = 16000


@dataclass(frozen=True)
class AudioSettings:
    """The audio encoder with its front end's settings.

    Args:
        encoder: sizes and switches.
        sample_rate: Hz that recordings are resampled to.
        frame_length_ms: window of one fbank frame.
        frame_shift_ms: from one frame to the next.
        is_json_cmvn: how the `global_cmvn` file is written: JSON, or Kaldi's text.
        notes: what was read but is treated otherwise than written.
    """

    encoder: AudioEncoderConfig
    sample_rate: int
    frame_length_ms: float
    frame_shift_ms: float
    is_json_cmvn: bool
    notes: tuple[str, ...]


def read_audio_settings(file: ConfigFile, main: MainSettings) -> AudioSettings:
    """Read and check `train.yaml`.

    Raises:
        CheckpointError: unknown keys, a variant that is not built here, or sizes that do not fit each other.
    """
    top = file.section(TopSection, file.read_yaml(), accepted=WENET_TRAINING)
    encoder = file.section(EncoderSection, top.encoder_conf, path="encoder_conf")
    overview = file.section(OverviewSection, encoder.overview_conf, path="encoder_conf.overview_conf")
    file.expect("encoder_conf.overview_conf.encoder-layer-config", overview.encoder_layer_config, LAYERS)
    parameters = file.section(ParametersSection, encoder.para_conf, path=ENCODER)
    subsampling = file.section(SubsamplingSection, parameters.subsampling, path=f"{ENCODER}.subsampling")
    transformer = file.section(TransformerSection, parameters.transformer, path=f"{ENCODER}.transformer")
    model = file.section(ModelSection, top.model_conf, path="model_conf", accepted=AUDIO_MODEL_TRAINING)
    dataset = file.section(DatasetSection, top.dataset_conf, path=DATASET, accepted=WENET_DATASET)
    fbank = file.section(FbankSection, dataset.fbank_conf, path=f"{DATASET}.fbank_conf")
    resample = file.section(ResampleSection, dataset.resample_conf, path=f"{DATASET}.resample_conf")
    _refuse_variants(file, subsampling, transformer, model)
    file.expect("dataset_conf.feats_type", dataset.feats_type, "fbank")
    _check_sizes(file, subsampling, transformer, model)
    _check_front_end(file, fbank, resample)
    _check_joints(file, _Joints(top.input_dim, overview, subsampling, transformer, model, fbank, main))
    return AudioSettings(
        encoder=_encoder_config(subsampling, transformer, model, main),
        sample_rate=resample.resample_rate,
        frame_length_ms=fbank.frame_length,
        frame_shift_ms=fbank.frame_shift,
        is_json_cmvn=top.is_json_cmvn,
        notes=_notes(transformer, fbank),
    )


@dataclass(frozen=True)
class _Joints:
    """The sections whose sizes meet."""

    input_dim: int
    overview: OverviewSection
    subsampling: SubsamplingSection
    transformer: TransformerSection
    model: ModelSection
    fbank: FbankSection
    main: MainSettings


def _encoder_config(
    subsampling: SubsamplingSection, transformer: TransformerSection, model: ModelSection, main: MainSettings
) -> AudioEncoderConfig:
    full_attention = transformer.transformer_dynamic_chunks
    return AudioEncoderConfig(
        mel_bins=subsampling.subsampling_input_dim,
        subsampling_size=subsampling.subsampling_output_dim,
        attention_size=transformer.transformer_attention_dim,
        num_heads=transformer.transformer_attention_heads,
        linear_units=transformer.transformer_linear_units,
        num_blocks=transformer.transformer_num_blocks,
        adapter=AdapterConfig(
            kind=cast(Literal["subsampling", "cnn", "linear"], model.adpter_type),
            encoder_size=model.enc_out_dim,
            llm_hidden_size=model.llm_embed_dim,
            kernel_size=model.kernel_size,
            norm=cast(Literal["batch", "layer"], model.norm),
            activation=cast(Literal["relu", "gelu"], model.activation_func),
        ),
        chunk_size=-1 if full_attention else transformer.transformer_chunk_size,
        left_chunks=-1 if full_attention else transformer.transformer_left_chunks,
        prompt_tokens=main.prompt_tokens,
        dropout=transformer.transformer_dropout_rate,
        positional_dropout=transformer.transformer_positional_dropout_rate,
        attention_dropout=transformer.transformer_attention_dropout_rate,
        subsampling_dropout=subsampling.subsampling_dropout_rate,
    )


def _refuse_variants(
    file: ConfigFile, subsampling: SubsamplingSection, transformer: TransformerSection, model: ModelSection
) -> None:
    file.expect(f"{ENCODER}.subsampling.subsampling-rate", subsampling.subsampling_rate, 4)
    path = f"{ENCODER}.transformer.transformer-"
    file.expect(path + "input-layer", transformer.transformer_input_layer, "linear")
    file.expect(path + "pos-enc-class", transformer.transformer_pos_enc_class, "rel-enc")
    file.expect(path + "normalize-before", transformer.transformer_normalize_before, True)
    file.expect(path + "concat-after", transformer.transformer_concat_after, False)
    file.expect(path + "positionwise-layer-type", transformer.transformer_positionwise_layer_type, "linear")
    file.expect("model_conf.adpter_type", model.adpter_type, "subsampling", "cnn", "linear")
    file.expect("model_conf.activation_func", model.activation_func, "relu", "gelu")
    file.expect("model_conf.norm", model.norm, "batch", "layer")
    file.expect("model_conf.add_audio_bos_eos", model.add_audio_bos_eos, False)


def _check_sizes(
    file: ConfigFile, subsampling: SubsamplingSection, transformer: TransformerSection, model: ModelSection
) -> None:
    file.within(f"{ENCODER}.subsampling.subsampling-input-dim", subsampling.subsampling_input_dim, 7, 512)
    file.within(f"{ENCODER}.subsampling.subsampling-output-dim", subsampling.subsampling_output_dim, 1, 16384)
    path = f"{ENCODER}.transformer.transformer-"
    width, heads = transformer.transformer_attention_dim, transformer.transformer_attention_heads
    file.within(path + "attention-dim", width, 2, 16384)
    file.within(path + "attention-heads", heads, 1, 256)
    file.within(path + "linear-units", transformer.transformer_linear_units, 1, 65536)
    file.within(path + "num-blocks", transformer.transformer_num_blocks, 1, 256)
    if width % heads:
        raise file.error(f"{path}attention-dim is {width}, expected a multiple of attention-heads, {heads}")
    if width % 2:
        raise file.error(f"{path}attention-dim is {width}, expected an even number (sines and cosines)")
    chunk, left = transformer.transformer_chunk_size, transformer.transformer_left_chunks
    if chunk != -1:
        file.within(path + "chunk_size", chunk, 1, 4096)
    file.within(path + "left_chunks", left, -1, 4096)
    file.within("model_conf.kernel_size", model.kernel_size, 1, 64)


def _check_front_end(file: ConfigFile, fbank: FbankSection, resample: ResampleSection) -> None:
    path = f"{DATASET}.fbank_conf."
    file.within(path + "frame_length", fbank.frame_length, 1, 1000)
    file.within(path + "frame_shift", fbank.frame_shift, 1, 1000)
    file.within(path + "dither", fbank.dither, 0, 100)
    file.within(f"{DATASET}.resample_conf.resample_rate", resample.resample_rate, 4000, 192000)


def _check_joints(file: ConfigFile, joints: _Joints) -> None:
    """Each part's input is as wide as the output before it."""
    subsampling, transformer, model = joints.subsampling, joints.transformer, joints.model
    mel, conf = ("encoder_conf.overview_conf.encoder-input-dim", joints.overview.encoder_input_dim), "model_conf."
    file.agree("input_dim", joints.input_dim, *mel)
    file.agree(f"{DATASET}.fbank_conf.num_mel_bins", joints.fbank.num_mel_bins, *mel)
    file.agree(f"{ENCODER}.subsampling.subsampling-input-dim", subsampling.subsampling_input_dim, *mel)
    file.agree(
        f"{ENCODER}.transformer.transformer-input-dim",
        transformer.transformer_input_dim,
        "subsampling-output-dim",
        subsampling.subsampling_output_dim,
    )
    width = ("transformer-attention-dim", transformer.transformer_attention_dim)
    file.agree(f"{ENCODER}.transformer.transformer-output-dim", transformer.transformer_output_dim, *width)
    file.agree("encoder_conf.overview_conf.encoder-output-dim", joints.overview.encoder_output_dim, *width)
    file.agree(conf + "enc_out_dim", model.enc_out_dim, *width)
    file.agree(conf + "llm_embed_dim", model.llm_embed_dim, "hidden_size in config.json", joints.main.hidden_size)


def _notes(transformer: TransformerSection, fbank: FbankSection) -> tuple[str, ...]:
    notes = []
    if transformer.transformer_dynamic_chunks:
        notes.append(
            "train.yaml sets transformer-dynamic-chunks: the release then draws a random attention chunk for every "
            "recording; here such an encoder attends to the whole recording"
        )
    if fbank.dither:
        notes.append(f"train.yaml sets dither {fbank.dither:g}: that random noise is left out of the features here")
    return tuple(notes)
