"""All configuration files of a checkpoint → one `VitaConfig`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sottovoce.export.checkpoint.audio_config import AudioSettings, read_audio_settings
from sottovoce.export.checkpoint.config_file import ConfigFile
from sottovoce.export.checkpoint.folder import component_folder
from sottovoce.export.checkpoint.language_config import (
    MainSettings,
    language_model_config,
    read_main_settings,
    read_stop_ids,
)
from sottovoce.export.checkpoint.speech_config import read_codec_config, read_speech_decoder_config
from sottovoce.export.checkpoint.vision_config import read_pixel_settings, read_vision_config
from sottovoce.export.config import VitaConfig
from sottovoce.runtime.errors import CheckpointError

SPEECH_FOLDER = "vita_tts_ckpt"


@dataclass(frozen=True)
class CheckpointLayout:
    """Where a checkpoint's parts are, and how its CMVN file is written."""

    folder: Path
    vision: Path
    audio: Path
    speech_decoder: Path
    codec: Path
    is_json_cmvn: bool

    def config_files(self) -> tuple[Path, ...]:
        """The configuration files that are there."""
        paths = (
            self.folder / "config.json",
            self.folder / "generation_config.json",
            self.vision / "config.json",
            self.vision / "preprocessor_config.json",
            self.audio / "train.yaml",
            self.speech_decoder / "model.json",
            self.codec / "model.json",
        )
        return tuple(path for path in paths if path.exists())


def read_config(folder: Path, ignored_keys: Collection[str] = ()) -> VitaConfig:
    """Read every component's configuration.

    Args:
        folder: the checkpoint, the folder that holds `config.json`.
        ignored_keys: keys, bare or by whole path, to drop unread in any file.

    Raises:
        CheckpointError: a file is missing or malformed, a key is unknown, a size is out of bounds or does not fit
            another, or a switch asks for a computation that is not built here.
    """
    return read_layout(folder, ignored_keys)[0]


def read_layout(folder: Path, ignored_keys: Collection[str] = ()) -> tuple[VitaConfig, CheckpointLayout]:
    """Like `read_config`, with where the components were found."""
    ignored = frozenset(ignored_keys)
    if not folder.is_dir():
        raise CheckpointError("there is no such folder", file=folder, fix="give the folder that holds config.json")
    main_file = ConfigFile(folder / "config.json", ignored)
    main = read_main_settings(main_file)
    vision_folder = component_folder(folder, main.mm_vision_tower, "mm_vision_tower")
    audio_folder = component_folder(folder, main.mm_audio_encoder, "mm_audio_encoder")
    speech_folder = folder / SPEECH_FOLDER
    audio = read_audio_settings(ConfigFile(audio_folder / "train.yaml", ignored), main)
    layout = CheckpointLayout(
        folder=folder,
        vision=vision_folder,
        audio=audio_folder,
        speech_decoder=speech_folder / "decoder",
        codec=speech_folder / "codec",
        is_json_cmvn=audio.is_json_cmvn,
    )
    return _assemble(main_file, main, audio, layout), layout


def _assemble(main_file: ConfigFile, main: MainSettings, audio: AudioSettings, layout: CheckpointLayout) -> VitaConfig:
    ignored = main_file.ignored_keys
    vision = read_vision_config(ConfigFile(layout.vision / "config.json", ignored), main.hidden_size)
    if main.mm_hidden_size is not None:
        width = vision.projector_input_size
        main_file.agree("mm_hidden_size", main.mm_hidden_size, "the vision encoder's hidden_size, times four,", width)
    pixels = read_pixel_settings(ConfigFile(layout.vision / "preprocessor_config.json", ignored), vision)
    decoder_file = ConfigFile(layout.speech_decoder / "model.json", ignored)
    speech = read_speech_decoder_config(decoder_file, main.hidden_size)
    generation_file = ConfigFile(layout.folder / "generation_config.json", ignored)
    return VitaConfig(
        language_model=language_model_config(main_file, main),
        vision=vision,
        audio=audio.encoder,
        speech_decoder=speech,
        codec=read_codec_config(ConfigFile(layout.codec / "model.json", ignored), speech),
        stop_ids=read_stop_ids(generation_file, main, main_file),
        image_mean=pixels.image_mean,
        image_std=pixels.image_std,
        pad_to_square=main.image_aspect_ratio == "pad",
        sample_rate=audio.sample_rate,
        frame_length_ms=audio.frame_length_ms,
        frame_shift_ms=audio.frame_shift_ms,
        notes=audio.notes,
    )
