"""The checkpoint's tensors: which file they come from, and that they are mapped rather than loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_factory import CheckpointRecipe, small_config, static_chunks_config, write_checkpoint
from checkpoint_weights import random_weights
from safetensors import safe_open

from sottovoce.export.checkpoint.component_weights import check_finite
from sottovoce.export.checkpoint.names import COMPONENTS, MAIN_PREFIXES, Component, expected_tensors
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import VitaConfig
from sottovoce.runtime.errors import CheckpointError

small, static = small_config(), static_chunks_config()


def kept_as_drawn(checkpoint: Checkpoint, config: VitaConfig, seed: int, component: Component) -> bool:
    """Whether every tensor of a component is the one that was written under `seed`, stored type aside."""
    drawn = random_weights(config, component, seed)
    state = checkpoint.component_state(component)
    return set(state) == set(drawn) and all(
        torch.equal(state[name].float(), torch.from_numpy(array).to(state[name].dtype).float())
        for name, array in drawn.items()
    )


def test_tiny_checkpoint_main_files_win_over_component_folders(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    audio_folder = tiny_checkpoint / json.loads((tiny_checkpoint / "config.json").read_text())["mm_audio_encoder"]
    own_audio = torch.load(audio_folder / "final.pt", weights_only=True)
    main = {}
    for shard in sorted(tiny_checkpoint.glob("model-*.safetensors")):
        with safe_open(shard, "pt") as file:
            main |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    audio = checkpoint.component_state("audio")
    assert all(torch.equal(audio[name], main["model.audio_encoder." + name]) for name in audio)
    differing = [name for name in audio if not torch.equal(audio[name], own_audio[name])]
    assert len(differing) > 10, "the two copies differ on purpose; equal ones could not show which was read"
    with safe_open(tiny_checkpoint / "InternViT-300M-448px" / "model.safetensors", "pt") as file:
        own_vision = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    vision = checkpoint.component_state("vision")
    assert all(torch.equal(vision[name], main["model." + name]) for name in vision)
    assert any(not torch.equal(vision["vision_tower.vision_tower." + name], own_vision[name]) for name in own_vision)


def test_tiny_checkpoint_is_whole(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    sizes = {component: len(checkpoint.component_state(component)) for component in COMPONENTS}
    assert sizes == {"language_model": 39, "vision": 50, "audio": 77, "speech_decoder": 58, "codec": 171}
    assert len(checkpoint.names()) == 166
    assert checkpoint.tensor("model.embed_tokens.weight").shape == (640, 128)
    assert checkpoint.component_state("codec")["quantizer.quantizer_modules.0.embedding.weight"].shape == (64, 512)
    assert not any(name.startswith("encoder.") for name in checkpoint.component_state("codec"))
    checkpoint.check_finite()


adapter = small.audio.adapter
RECIPES = {
    "two shards": CheckpointRecipe(),
    "single file": CheckpointRecipe(shards=1),
    "six shards, static": CheckpointRecipe(static, shards=6),
    "bfloat16": CheckpointRecipe(dtype="bfloat16", speech_dtype="float16"),
    "bare state dict": CheckpointRecipe(wrap_decoder=False),
    "component weights differ": CheckpointRecipe(component_weights=True),
    "components only": CheckpointRecipe(components_only=True),
    "cnn adapter": CheckpointRecipe(
        replace(small, audio=replace(small.audio, adapter=replace(adapter, kind="cnn", norm="batch")))
    ),
    "linear adapter": CheckpointRecipe(
        replace(small, audio=replace(small.audio, adapter=replace(adapter, kind="linear")))
    ),
    "narrow encoder": CheckpointRecipe(
        replace(
            small,
            audio=replace(small.audio, attention_size=18, adapter=replace(adapter, encoder_size=18, norm="batch")),
        )
    ),
    "audio prompts": CheckpointRecipe(replace(small, audio=replace(small.audio, prompt_tokens=5))),
    "groups and residuals": CheckpointRecipe(
        replace(small, codec=replace(small.codec, residual_layers=4, code_groups=2))
    ),
    "tied": CheckpointRecipe(
        replace(small, language_model=replace(small.language_model, tie_word_embeddings=True, vocab_size=700))
    ),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_every_layout_gives_back_its_tensors(recipe: CheckpointRecipe, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, recipe))
    assert checkpoint.config == recipe.config
    for component in COMPONENTS:
        assert kept_as_drawn(checkpoint, recipe.config, recipe.seed, component), component


def test_component_folder_fills_only_what_main_files_lack(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, CheckpointRecipe(component_weights=True, shards=1))
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    lacking = "model.audio_encoder.adpter.project.bias"
    save_file({name: tensor for name, tensor in tensors.items() if name != lacking}, folder / "model.safetensors")
    audio = Checkpoint.open(folder).component_state("audio")
    own = torch.load(folder / "audio-encoder-small" / "final.pt", weights_only=True)
    assert torch.equal(audio["adpter.project.bias"], own["adpter.project.bias"])
    assert torch.equal(audio["adpter.project.weight"], tensors["model.audio_encoder.adpter.project.weight"])
    assert not torch.equal(audio["adpter.project.weight"], own["adpter.project.weight"])


@pytest.mark.parametrize("cmvn_format", ["json", "kaldi"])
def test_cmvn_from_its_file_where_weights_lack_it(tmp_path: Path, cmvn_format: str) -> None:
    folder = write_checkpoint(tmp_path, CheckpointRecipe(cmvn_in_main=False, cmvn_format=cmvn_format))  # type: ignore[arg-type]
    checkpoint = Checkpoint.open(folder)
    audio, drawn = checkpoint.component_state("audio"), random_weights(small, "audio", 0)
    for name in ("encoder.global_cmvn.mean", "encoder.global_cmvn.istd"):
        np.testing.assert_allclose(audio[name].numpy(), drawn[name], rtol=1e-5)
    assert folder / "audio-encoder-small" / "global_cmvn" in checkpoint.files()


def test_tiny_cmvn_file_agrees_with_the_released_formula(tiny_checkpoint: Path) -> None:
    from sottovoce.export.checkpoint.global_cmvn import read_global_cmvn

    folder = tiny_checkpoint / json.loads((tiny_checkpoint / "config.json").read_text())["mm_audio_encoder"]
    mean, istd = read_global_cmvn(folder / "global_cmvn", is_json=True, mel_bins=80)
    stored = torch.load(folder / "final.pt", weights_only=True)
    torch.testing.assert_close(mean, stored["encoder.global_cmvn.mean"], rtol=1e-6, atol=0)
    torch.testing.assert_close(istd, stored["encoder.global_cmvn.istd"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("kind", "built"), [("1", 3), ("2", 2)])
def test_hifigan_dilations_beyond_those_built_are_dropped(tmp_path: Path, kind: str, built: int) -> None:
    stored = replace(small.codec, resblock_kind=kind, resblock_dilation_sizes=((1, 3, 5)[:built],) * 2)
    folder = write_checkpoint(tmp_path, CheckpointRecipe(replace(small, codec=stored)))
    path = folder / "vita_tts_ckpt" / "codec" / "model.json"
    settings = json.loads(path.read_text())
    settings["resblock_dilation_sizes"] = [[*(1, 3, 5)[:built], 7]] * 2
    path.write_text(json.dumps(settings))
    assert Checkpoint.open(folder).config.codec == stored


def test_batch_norm_counters_and_old_rotary_buffers_are_passed_over(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path, CheckpointRecipe(static, shards=1))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.audio_encoder.adpter.bn2.num_batches_tracked"] = torch.tensor(7)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    save_file(tensors, folder / "model.safetensors")
    checkpoint = Checkpoint.open(folder)
    assert "adpter.bn2.num_batches_tracked" not in checkpoint.component_state("audio")
    assert "adpter.bn2.running_var" in checkpoint.component_state("audio")


def test_tied_checkpoint_may_still_store_its_head(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, CheckpointRecipe(config_keys={"tie_word_embeddings": True}))
    assert "lm_head.weight" not in Checkpoint.open(folder).component_state("language_model")


def test_fingerprint_follows_every_used_file_and_no_other(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "one", CheckpointRecipe())
    seen: list[tuple[int, int]] = []
    first = Checkpoint.open(folder).fingerprint(lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(path.stat().st_size for path in Checkpoint.open(folder).files())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    (folder / "README.md").write_text("about this model")
    assert Checkpoint.open(folder).fingerprint() == first
    again = write_checkpoint(tmp_path / "two", CheckpointRecipe())
    assert Checkpoint.open(again).fingerprint() == first, "where the folder lies does not matter"
    other = write_checkpoint(tmp_path / "three", CheckpointRecipe(seed=1))
    assert Checkpoint.open(other).fingerprint() != first
    settings = json.loads((folder / "config.json").read_text()) | {"use_cache": False}
    (folder / "config.json").write_text(json.dumps(settings))
    assert Checkpoint.open(folder).fingerprint() != first


def test_expected_names_have_no_overlap_between_components() -> None:
    names = [
        prefix + name for component, prefix in MAIN_PREFIXES.items() for name in expected_tensors(small, component)
    ]
    assert len(names) == len(set(names))


def test_check_finite_names_tensor_and_file() -> None:
    check_finite("fine", torch.ones(3))
    with pytest.raises(CheckpointError, match=r"'bad' holds 2 values .* of 6") as caught:
        check_finite("bad", torch.tensor([[1, float("nan"), 3], [4, 5, float("inf")]]), Path("shard.safetensors"))
    assert caught.value.file == "shard.safetensors"


def test_nan_in_a_shard_is_found_with_its_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path, CheckpointRecipe(shards=1))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.audio_encoder.adpter.project.bias"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.audio_encoder\.adpter\.project\.bias") as caught:
        Checkpoint.open(folder).check_finite()
    assert caught.value.file == str(folder / "model.safetensors")


LARGE = """
import resource, sys
from pathlib import Path
from sottovoce.export.checkpoint.reader import Checkpoint

def anonymous_mb():
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024

import torch
before = anonymous_mb()
checkpoint = Checkpoint.open(Path(sys.argv[1]))
opened = anonymous_mb() - before
total = sum(float(tensor[:1].float().sum()) for tensor in checkpoint.component_state("language_model").values())
print(opened, anonymous_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_weights_are_mapped_not_loaded(tmp_path: Path) -> None:
    large = replace(small.language_model, vocab_size=100_000, hidden_size=96)  # 77 MB of the two tables
    folder = write_checkpoint(tmp_path, CheckpointRecipe(replace(small, language_model=large)))
    command = [sys.executable, "-c", LARGE, str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    opened, walked = map(float, output.split())
    assert opened < 20, "opening reads headers only"
    assert walked < 30, "walking through the tensors holds none of them"
