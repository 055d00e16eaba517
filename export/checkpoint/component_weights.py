"""Which file each tensor of each component comes from, checked against what the configuration implies.

The main safetensors files win: a component folder's own file is opened only for tensors that the main files lack, and
the `global_cmvn` file only where no weights hold its two buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sottovoce.export.checkpoint.configuration import CheckpointLayout
from sottovoce.export.checkpoint.global_cmvn import read_global_cmvn
from sottovoce.export.checkpoint.names import (
    CMVN_TENSORS,
    MAIN_PREFIXES,
    Component,
    Shape,
    Shapes,
    expected_tensors,
    is_computed_with,
)
from sottovoce.export.checkpoint.pickled_weights import read_codec_state, read_state_dict
from sottovoce.export.checkpoint.safetensors_shards import FLOATS, INDEX, SINGLE, Shards, open_main_shards
from sottovoce.export.checkpoint.speech_config import dilations_in_use
from sottovoce.export.config import VitaConfig
from sottovoce.runtime.errors import CheckpointError

VISION_TOWER = "vision_tower.vision_tower."
SAME_RELEASE = "take the configuration and the weights from the same release"


@dataclass(frozen=True)
class Weight:
    """One tensor: what it is, where it is, and how to get it.

    Args:
        dtype: PyTorch's name of the stored type.
        shape: its shape.
        file: the file that holds it.
        load: maps or reads it.
    """

    dtype: str
    shape: Shape
    file: Path
    load: Callable[[], Tensor]


Weights = dict[str, Weight]


@dataclass(frozen=True)
class CheckpointWeights:
    """Every component's tensors, the configuration as the weights settled it, and the files they came from."""

    config: VitaConfig
    components: Mapping[Component, Weights]
    files: tuple[Path, ...]


def gather_weights(config: VitaConfig, layout: CheckpointLayout) -> CheckpointWeights:
    """Find every tensor that the configuration implies.

    Raises:
        CheckpointError: files missing or damaged; tensors missing, unexpected, of another shape, or not floats.
    """
    shards = open_main_shards(layout.folder)
    components = _main_components(config, layout, shards)
    components["speech_decoder"] = _pickled(layout.speech_decoder / "final.pt", read_state_dict)
    components["codec"] = _pickled(layout.codec / "final.pt", read_codec_state)
    config = replace(config, codec=dilations_in_use(config.codec, components["codec"]))
    for component in ("speech_decoder", "codec"):
        _check_names(component, expected_tensors(config, component), components[component])
    used = {weight.file for weights in components.values() for weight in weights.values()} | set(shards.files)
    if (layout.folder / INDEX).exists():
        used.add(layout.folder / INDEX)
    for component, weights in components.items():
        expected = expected_tensors(config, component)
        _check_shapes(expected, weights, MAIN_PREFIXES.get(component, ""))
        components[component] = {name: weights[name] for name in expected}
    return CheckpointWeights(config, components, tuple(sorted(used)))


def _main_components(config: VitaConfig, layout: CheckpointLayout, shards: Shards) -> dict[Component, Weights]:
    """The language model, vision and audio: from the main files, then from the component folders."""
    components: dict[Component, Weights] = {}
    expected = {component: expected_tensors(config, component) for component in MAIN_PREFIXES}
    for component, prefix in MAIN_PREFIXES.items():
        components[component] = _from_shards(shards, expected[component], prefix)
    if expected["vision"].keys() - components["vision"].keys():
        components["vision"] = _from_vision_folder(layout.vision, expected["vision"]) | components["vision"]
    if expected["audio"].keys() - components["audio"].keys():
        components["audio"] = _from_audio_folder(config, layout, components["audio"]) | components["audio"]
    wanted = {prefix + name for component, prefix in MAIN_PREFIXES.items() for name in expected[component]}
    tied = {"lm_head.weight"} if config.language_model.tie_word_embeddings else set()
    unexpected = [name for name in shards.tensors if name not in wanted | tied and is_computed_with(name)]
    missing = {
        prefix + name: shape
        for component, prefix in MAIN_PREFIXES.items()
        for name, shape in expected[component].items()
        if name not in components[component]
    }
    _refuse_names(layout.folder / (INDEX if len(shards.files) > 1 else SINGLE), missing, unexpected)
    return components


def _from_shards(shards: Shards, expected: Iterable[str], prefix: str) -> Weights:
    def weight(name: str) -> Weight:
        stored = shards.tensors[name]
        return Weight(FLOATS.get(stored.dtype, stored.dtype), stored.shape, stored.file, lambda: shards.tensor(name))

    return {name: weight(prefix + name) for name in expected if prefix + name in shards.tensors}


def _from_vision_folder(folder: Path, expected: Iterable[str]) -> Weights:
    if not any(folder.glob("*.safetensors")):
        return {}
    names = [name.removeprefix(VISION_TOWER) for name in expected if name.startswith(VISION_TOWER)]
    found = _from_shards(open_main_shards(folder), names, "")
    return {VISION_TOWER + name: weight for name, weight in found.items()}


def _from_audio_folder(config: VitaConfig, layout: CheckpointLayout, main: Weights) -> Weights:
    found: Weights = {}
    if (layout.audio / "final.pt").is_file() and expected_tensors(config, "audio").keys() - {*main, *CMVN_TENSORS}:
        found = _pickled(layout.audio / "final.pt", read_state_dict)
    lacking = [name for name in CMVN_TENSORS if name not in main and name not in found]
    if lacking:
        path, bins = layout.audio / "global_cmvn", config.audio.mel_bins
        statistics = read_global_cmvn(path, is_json=layout.is_json_cmvn, mel_bins=bins)
        for name, tensor in zip(CMVN_TENSORS, statistics, strict=True):
            if name in lacking:
                found[name] = _held(tensor, path)
    return found


def _pickled(path: Path, read: Callable[[Path], dict[str, Tensor]]) -> Weights:
    return {name: _held(tensor, path) for name, tensor in read(path).items()}


def _held(tensor: Tensor, path: Path) -> Weight:
    return Weight(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), path, lambda: tensor)


def _check_names(component: Component, expected: Shapes, weights: Weights) -> None:
    file = next(iter(weights.values())).file if weights else None
    missing = {name: shape for name, shape in expected.items() if name not in weights}
    unexpected = [name for name in weights if name not in expected and is_computed_with(name)]
    _refuse_names(file or Path(component), missing, unexpected)


def _refuse_names(file: Path, missing: Shapes, unexpected: list[str]) -> None:
    problems = []
    if missing:
        listed = [f"{name!r} {list(shape)}" for name, shape in missing.items()]
        problems.append(f"{_count(len(missing))} missing: {_first(listed)}")
    if unexpected:
        problems.append(f"{_count(len(unexpected))} unexpected: {_first([repr(name) for name in unexpected])}")
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}; expected exactly the tensors that the configuration files imply",
            file=file,
            fix=SAME_RELEASE,
        )


def _check_shapes(expected: Shapes, weights: Weights, prefix: str) -> None:
    wrong = [
        f"{prefix + name!r} has shape {list(weights[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if weights[name].shape != shape
    ]
    if wrong:
        name = next(name for name, shape in expected.items() if weights[name].shape != shape)
        count = f"{len(wrong)} tensors do not fit the configuration: " if len(wrong) > 1 else "tensor "
        raise CheckpointError(count + _first(wrong), file=weights[name].file, fix=SAME_RELEASE)
    for name in expected:
        if weights[name].dtype not in FLOATS.values():
            raise CheckpointError(
                f"tensor {prefix + name!r} is stored as {weights[name].dtype}, expected float32, float16 or bfloat16",
                file=weights[name].file,
                fix="export the unquantized checkpoint",
            )


def _count(number: int) -> str:
    return "1 tensor is" if number == 1 else f"{number} tensors are"


def _first(items: list[str], most: int = 3) -> str:
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def check_finite(name: str, tensor: Tensor, file: Path | None = None) -> None:
    """Refuse a weight that holds NaN or an infinity, piece by piece so that little memory is used.

    Raises:
        CheckpointError: with the tensor's name and how many values are not finite.
    """
    flat = tensor.detach().reshape(-1)
    wrong = sum(int((~torch.isfinite(piece)).sum()) for piece in flat.split(1 << 22))
    if wrong:
        raise CheckpointError(
            f"tensor {name!r} holds {wrong} values that are NaN or infinite, of {flat.numel()}",
            file=file,
            fix="download the file again; if it was trained so, the training diverged",
        )
