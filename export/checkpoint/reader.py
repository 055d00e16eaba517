"""A VITA-1.5 checkpoint on disk: its configuration, and its tensors by name, mapped rather than loaded.

checkpoint = Checkpoint.open(folder)
checkpoint.config.language_model.num_layers
audio_encoder.load_state_dict(dict(checkpoint.component_state("audio")))
for name, tensor in checkpoint.component_state("language_model").items(): ...     # one at a time
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from sottovoce.export.checkpoint.component_weights import CheckpointWeights, Weights, check_finite, gather_weights
from sottovoce.export.checkpoint.configuration import CheckpointLayout, read_layout
from sottovoce.export.checkpoint.names import COMPONENTS, MAIN_PREFIXES, Component
from sottovoce.export.checkpoint.tokenizer import check_tokenizer
from sottovoce.export.config import VitaConfig

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes there are."""

HASH_PIECE_BYTES = 4 << 20


class ComponentState(Mapping[str, Tensor]):
    """One component's tensors by name. Each is mapped when asked for, and let go when the caller lets it go."""

    def __init__(self, component: Component, weights: Weights) -> None:
        self.component = component
        self._weights = weights

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without mapping it."""
        return self._weights[name].shape

    def file(self, name: str) -> Path:
        """The file that holds the tensor."""
        return self._weights[name].file

    def check_finite(self) -> None:
        """Read every value once.

        Raises:
            CheckpointError: a tensor holds NaN or an infinity; its name and file are given.
        """
        for name in self:
            check_finite(MAIN_PREFIXES.get(self.component, "") + name, self[name], self.file(name))


class Checkpoint:
    """What `Checkpoint.open` returns; every name and shape has been checked against the configuration.

    Args:
        layout: where its parts are.
        weights: its tensors and where they come from.
        tokenizer: the path of its `tokenizer.json`.
    """

    def __init__(self, layout: CheckpointLayout, weights: CheckpointWeights, tokenizer: Path) -> None:
        self.folder = layout.folder
        self.tokenizer = tokenizer
        self._layout = layout
        self._weights = weights
        self._main = {
            MAIN_PREFIXES[component] + name: weight
            for component in MAIN_PREFIXES
            for name, weight in weights.components[component].items()
        }

    @classmethod
    def open(cls, folder: Path, ignored_keys: Collection[str] = ()) -> Checkpoint:
        """Read configurations and headers and check them against each other; no weights are loaded.

        Args:
            folder: a folder, as `resolve_checkpoint` gives it.
            ignored_keys: configuration keys to drop unread, bare or by whole path.

        Raises:
            CheckpointError: anything missing, damaged, unknown, or of other sizes than the configuration says.
        """
        config, layout = read_layout(folder, ignored_keys)
        tokenizer = check_tokenizer(folder, config.language_model.vocab_size)
        return cls(layout, gather_weights(config, layout), tokenizer)

    @property
    def config(self) -> VitaConfig:
        """All components' sizes and switches."""
        return self._weights.config

    def names(self) -> tuple[str, ...]:
        """The multimodal language model's tensors, by their names in the main safetensors files."""
        return tuple(self._main)

    def tensor(self, name: str) -> Tensor:
        """One tensor of the multimodal language model, in its stored type: a view of the mapped file.

        Raises:
            KeyError: the checkpoint holds no tensor of that name.
        """
        return self._main[name].load()

    def component_state(self, component: Component) -> ComponentState:
        """One component's tensors.

        Names are those below `model.audio_encoder.` for `audio`, below `model.` for `vision`, whole for
        `language_model`, and those of `final.pt` for `speech_decoder` and `codec` (`generator.…`, `quantizer.…`).
        """
        return ComponentState(component, self._weights.components[component])

    def check_finite(self) -> None:
        """Read every weight once and refuse NaN and infinities.

        Raises:
            CheckpointError: naming the tensor and its file.
        """
        for component in COMPONENTS:
            self.component_state(component).check_finite()

    def files(self) -> tuple[Path, ...]:
        """Every file that what is exported depends on."""
        return tuple(sorted({*self._weights.files, *self._layout.config_files(), self.tokenizer}))

    def fingerprint(self, progress: Progress | None = None) -> str:
        """SHA-256, in hex, over the sorted relative paths, sizes and SHA-256 sums of the files used."""
        files = {self._relative(path): path for path in self.files()}
        total = sum(path.stat().st_size for path in files.values())
        done, digest = 0, hashlib.sha256()
        for relative, path in sorted(files.items()):
            file_digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(HASH_PIECE_BYTES):
                    file_digest.update(piece)
                    done += len(piece)
                    if progress is not None:
                        progress(done, total)
            digest.update(f"{relative}\0{path.stat().st_size}\0{file_digest.hexdigest()}\n".encode())
        return digest.hexdigest()

    def _relative(self, path: Path) -> str:
        if path.is_relative_to(self.folder):
            return path.relative_to(self.folder).as_posix()
        return f"{path.parent.name}/{path.name}"  # a component folder beside the checkpoint


__all__ = ["Checkpoint", "ComponentState", "Progress", "check_finite"]
