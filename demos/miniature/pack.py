"""From training states to a checkpoint in the layout of the released model: fp16, at most 25 MB."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from sottovoce.demos.miniature import layout
from sottovoce.demos.miniature.card import Measurements, write_card
from sottovoce.demos.miniature.learner import Learner
from sottovoce.demos.miniature.model import AUDIO, VISION, build_audio_encoder
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_out.packing import half_precision, write_codec, write_speech_decoder
from sottovoce.demos.miniature.speech_out.training_state import load_state
from sottovoce.demos.miniature.tokenizer import END_OF_TEXT, TOKENIZER_FILES, TURN_END, prepare, token_id
from sottovoce.demos.miniature.warm_start import units_beside
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import CodecConfig, SpeechDecoderConfig
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.runtime.errors import SottovoceError

MAX_BYTES = 25_000_000


def newest_states(workspace: Workspace) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The states that hold learner and encoder: both from the joint training, or each from its own.

    Of the joint training, it is the mean over its segments' ends, once one is over.

    Returns:
        The state with `learner`, and the one with `encoder` (None: nothing has listened yet).

    Raises:
        SottovoceError: no language model has been trained.
    """
    joint = load_state(workspace.states / "joint" / "state.pt")
    if joint is not None:
        mean = joint.get("mean") or joint
        return mean, mean
    language = load_state(workspace.states / "language" / "state.pt")
    if language is None:
        raise SottovoceError("no language model has been trained here", file=str(workspace.states),
                             fix="run: python -m sottovoce.demos.miniature train --stage 1")  # fmt: skip
    return language, load_state(workspace.states / "encoder" / "state.pt")


def pack(
    workspace: Workspace, target: Path, untrained_speech: bool = False, measured: Measurements | None = None
) -> int:
    """Write the checkpoint beside its place, let the exporter's own reader check it, and rename it into place.

    Args:
        workspace: where the training states are.
        target: the checkpoint's folder; what is there is replaced.
        untrained_speech: with a speech decoder and a codec of random weights where none are trained yet.
        measured: figures for the model card.

    Returns:
        The size of all the checkpoint's files, bytes. What makes its codes lies beside it: only training asks for that.

    Raises:
        SottovoceError: a part is not trained, the reader refuses the result, or it is larger than 25 MB.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write_main(workspace, scratch)
        _write_speech(workspace, scratch / "vita_tts_ckpt", untrained_speech)
        Checkpoint.open(scratch).check_finite()
        write_card(workspace, scratch, measured or Measurements())
        size = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
        if size > MAX_BYTES:
            raise SottovoceError(f"the packed checkpoint has {size} bytes, expected at most {MAX_BYTES}",
                                 file=str(target), fix="train smaller parts")  # fmt: skip
        scratch.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.rename(scratch, target)
        units = workspace.root / "codec" / "units.safetensors"
        if units.exists():
            shutil.copy(units, units_beside(target))
        return size
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_main(workspace: Workspace, folder: Path) -> None:
    tokenizer = prepare(workspace)
    padding, end = token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, TURN_END)
    learner = Learner(np.load(workspace.embeddings), padding)
    with_learner, with_encoder = newest_states(workspace)
    learner.load_state_dict(with_learner["learner"])
    encoder = build_audio_encoder()
    if with_encoder is not None:
        encoder.load_state_dict(with_encoder["encoder"])
    for name in TOKENIZER_FILES:
        shutil.copy(workspace.tokenizer / name, folder / name)
    weights: dict[str, Tensor] = {
        **learner.llm.state_dict(),
        **{f"model.{name}": tensor for name, tensor in learner.vision.state_dict().items()},
        **{f"model.audio_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()},
    }
    half = {name: tensor.contiguous() for name, tensor in half_precision(weights).items()}
    file = "model-00001-of-00001.safetensors"
    save_file(half, folder / file, metadata={"format": "pt"})
    total = sum(tensor.nbytes for tensor in half.values())
    _write_json(folder / "model.safetensors.index.json",
                {"metadata": {"total_size": total}, "weight_map": dict.fromkeys(sorted(half), file)})  # fmt: skip
    _write_json(folder / "config.json", layout.main_config(learner.llm.config, VISION, padding, end))
    _write_json(folder / "generation_config.json", layout.generation_config(padding, end))
    _write_json(folder / "sottovoce.json", layout.prompt_config())
    vision, audio = folder / layout.VISION_FOLDER, folder / layout.AUDIO_FOLDER
    vision.mkdir()
    audio.mkdir()
    _write_json(vision / "config.json", layout.vision_config(VISION))
    _write_json(vision / "preprocessor_config.json", layout.pixel_config(VISION))
    (audio / "train.yaml").write_text(yaml.safe_dump(layout.audio_config(AUDIO)), encoding="utf-8")
    cmvn = encoder.encoder.global_cmvn
    _write_json(audio / "global_cmvn", layout.cmvn_statistics(cmvn.mean.tolist(), cmvn.istd.tolist()))


def _write_speech(workspace: Workspace, folder: Path, untrained: bool) -> None:
    for part, name in (("decoder", "speech_decoder"), ("codec", "codec")):
        trained = workspace.root / name
        files = [trained / "model.json", trained / "final.pt"]
        if all(file.exists() for file in files):
            (folder / part).mkdir(parents=True)
            for file in files:
                shutil.copy(file, folder / part / file.name)
        elif untrained:
            _write_random_speech(folder / part)
        else:
            raise SottovoceError(f"there is no trained {name.replace('_', ' ')}", file=str(trained),
                                 fix="run: python -m sottovoce.demos.miniature train --stage 3")  # fmt: skip


def _write_random_speech(folder: Path) -> None:
    torch.manual_seed(0)
    if folder.name == "decoder":
        decoder = SpeechDecoderConfig(hidden_size=256, num_heads=4, intermediate_size=256, num_code_layers=4,
                                      num_codes=1024)  # fmt: skip
        write_speech_decoder(folder, SpeechDecoder(decoder), decoder)
        return
    codec = CodecConfig(
        num_codes=1024, upsample_rates=(8, 5, 5, 3), upsample_kernel_sizes=(16, 11, 11, 7),
        upsample_initial_channel=128, resblock_kind="1", resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),),
        global_tokens=(0, 0, 0, 0), global_width=128,
    )  # fmt: skip
    write_codec(folder, CodecDecoder(codec))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
