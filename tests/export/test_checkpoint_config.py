"""Configuration files of a checkpoint: what is read, what is passed over, and what is refused with which words."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoint_configs import train_yaml
from checkpoint_factory import CheckpointRecipe, small_config, static_chunks_config, write_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sottovoce.export.checkpoint.configuration import read_config
from sottovoce.export.checkpoint.folder import component_folder, resolve_checkpoint
from sottovoce.runtime.errors import CheckpointError

CONFIG, VISION = "config.json", "InternViT-300M-448px/config.json"
PIXELS = "InternViT-300M-448px/preprocessor_config.json"
TRAIN, DECODER = "audio-encoder-small/train.yaml", "vita_tts_ckpt/decoder/model.json"
CODEC = "vita_tts_ckpt/codec/model.json"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("template"))


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "checkpoint"))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Apply `change`, which works in place, to a parsed JSON or YAML file."""
    is_yaml = path.suffix == ".yaml"
    data = yaml.safe_load(path.read_text()) if is_yaml else json.loads(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data) if is_yaml else json.dumps(data))


def put(path: Path, dotted: str, value: object) -> None:
    """Set one key, given by its dotted path; list positions are numbers."""

    def change(data: Any) -> None:
        *parents, last = dotted.split(".")
        for key in parents:
            data = data[int(key)] if isinstance(data, list) else data[key]
        data[int(last) if isinstance(data, list) else last] = value

    edit(path, change)


def refusal(folder: Path, **options: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_config(folder, **options)
    return caught.value


def test_tiny_checkpoint_as_published(tiny_checkpoint: Path) -> None:
    config = read_config(tiny_checkpoint)
    llm, audio = config.language_model, config.audio
    assert (llm.hidden_size, llm.num_layers, llm.num_heads, llm.num_kv_heads, llm.head_size) == (128, 3, 4, 2, 32)
    assert (llm.vocab_size, llm.rope_theta, llm.tie_word_embeddings) == (640, 1e6, False)
    assert (config.vision.image_size, config.vision.tokens_per_tile, config.vision.projector_input_size) == (
        224,
        64,
        256,
    )
    assert (audio.adapter.kind, audio.adapter.norm, audio.adapter.activation) == ("subsampling", "layer", "gelu")
    assert (audio.chunk_size, audio.left_chunks, audio.prompt_tokens) == (-1, -1, 0)
    assert config.speech_decoder.end_id == 66
    assert config.codec.samples_per_code == 600
    assert config.codec.global_tokens == (34, 61, 60, 52, 26, 53, 28, 21)
    assert config.stop_ids == (555, 553)
    assert config.notes == ()


small, static = small_config(), static_chunks_config()
RECIPES = {
    "small": CheckpointRecipe(),
    "static chunks": CheckpointRecipe(static, shards=6),
    "hub names": CheckpointRecipe(component_names="hub"),
    "absolute names": CheckpointRecipe(component_names="absolute"),
    "padded pictures": CheckpointRecipe(replace(small, pad_to_square=True)),
    "tied embeddings": CheckpointRecipe(
        replace(small, language_model=replace(small.language_model, tie_word_embeddings=True))
    ),
    "audio prompts": CheckpointRecipe(replace(small, audio=replace(small.audio, prompt_tokens=5))),
    "cnn adapter": CheckpointRecipe(
        replace(small, audio=replace(small.audio, adapter=replace(small.audio.adapter, kind="cnn", norm="batch")))
    ),
    "residual codes": CheckpointRecipe(replace(small, codec=replace(small.codec, residual_layers=4, code_groups=2))),
    "own head size": CheckpointRecipe(
        replace(small, language_model=replace(small.language_model, head_size=24)), config_keys={"head_dim": 24}
    ),
    "one stop id": CheckpointRecipe(replace(small, stop_ids=(555,))),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_reads_back_what_was_written(recipe: CheckpointRecipe, tmp_path: Path) -> None:
    assert read_config(write_checkpoint(tmp_path, recipe)) == recipe.config


def test_release_keys_that_change_nothing_are_accepted(folder: Path) -> None:
    keys = {
        "_name_or_path": "somewhere", "dtype": "bfloat16", "layer_types": ["full_attention"] * 2, "freeze_anything": 1,
        "tune_mm_mlp_adapter": True, "mm_vision_lr": 1e-5, "tokenizer_model_max_length": 6200, "sliding_window": 4096,
        "rope_scaling": {"rope_type": "default"}, "use_s2": False, "unfreeze_vision_tower": True, "id2label": {},
    }  # fmt: skip
    edit(folder / CONFIG, lambda data: data.update(keys))
    edit(folder / TRAIN, lambda data: data.update(optim="adam", optim_conf={"lr": 1e-4}, accum_grad=4, max_epoch=100))
    put(folder / TRAIN, "dataset_conf.spec_aug_conf", {"num_t_mask": 2})
    put(folder / DECODER, "2.transformer_chunk_size", [1])
    assert read_config(folder) == small_config()


def test_transformers_5_rope_parameters(folder: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["rope_parameters"] = {"rope_type": "default", "rope_theta": data.pop("rope_theta")}

    edit(folder / CONFIG, change)
    assert read_config(folder).language_model.rope_theta == 1e6


def test_dynamic_chunks_become_full_attention_and_a_note(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, CheckpointRecipe(static))
    put(folder / TRAIN, "encoder_conf.para_conf.transformer.transformer-dynamic-chunks", True)
    config = read_config(folder)
    assert (config.audio.chunk_size, config.audio.left_chunks) == (-1, -1)
    assert any("dynamic-chunks" in note for note in config.notes)


def test_missing_dynamic_chunks_default_to_the_trainers_true(folder: Path) -> None:
    edit(folder / TRAIN, lambda d: d["encoder_conf"]["para_conf"]["transformer"].pop("transformer-dynamic-chunks"))
    assert any("dynamic-chunks" in note for note in read_config(folder).notes)


def test_dither_is_noted(folder: Path) -> None:
    put(folder / TRAIN, "dataset_conf.fbank_conf.dither", 1.0)
    assert any("dither" in note for note in read_config(folder).notes)


def test_stop_ids_fall_back_to_config_json(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert read_config(folder).stop_ids == (555,)
    edit(folder / CONFIG, lambda data: data.pop("eos_token_id"))
    assert "eos_token_id" in str(refusal(folder))


PARA = "encoder_conf.para_conf.transformer.transformer-"
VARIANTS = [
    (CONFIG, "model_type", "vita-mixtral", "vita-Qwen2"),
    (CONFIG, "architectures", ["LlamaForCausalLM"], "VITAQwen2ForCausalLM"),
    (CONFIG, "rope_scaling", {"type": "yarn", "factor": 4.0}, "default"),
    (CONFIG, "use_sliding_window", True, "false"),
    (CONFIG, "layer_types", ["full_attention", "sliding_attention"], "full_attention"),
    (CONFIG, "use_s2", True, "false"),
    (CONFIG, "hidden_act", "gelu", "silu"),
    (CONFIG, "mm_projector_type", "linear", "mlp2x_gelu"),
    (CONFIG, "quantization_config", {"bits": 4}, "null"),
    (CONFIG, "mm_hidden_size", 4096, "192"),
    (VISION, "model_type", "siglip_vision_model", "intern_vit_6b"),
    (VISION, "qk_normalization", True, "false"),
    (VISION, "norm_type", "rms_norm", "layer_norm"),
    (VISION, "hidden_act", "relu", "gelu"),
    (PIXELS, "do_center_crop", False, "true"),
    (PIXELS, "resample", 2, "3"),
    (PIXELS, "crop_size", 224, "112"),
    (PIXELS, "size", {"shortest_edge": 448}, "112"),
    (TRAIN, PARA + "concat-after", True, "false"),
    (TRAIN, PARA + "normalize-before", False, "true"),
    (TRAIN, PARA + "pos-enc-class", "abs-enc", "rel-enc"),
    (TRAIN, PARA + "input-layer", "embed", "linear"),
    (TRAIN, PARA + "positionwise-layer-type", "conv1d", "linear"),
    (TRAIN, PARA + "chunk_size", 0, "1"),
    (TRAIN, PARA + "output-dim", 64, "48"),
    (TRAIN, "encoder_conf.overview_conf.encoder-layer-config", "subsampling-mamba", "subsampling-transformer"),
    (TRAIN, "encoder_conf.para_conf.subsampling.subsampling-rate", 8, "4"),
    (TRAIN, "model_conf.adpter_type", "mamba", "subsampling"),
    (TRAIN, "model_conf.norm", "rms", "layer"),
    (TRAIN, "model_conf.add_audio_bos_eos", True, "false"),
    (TRAIN, "model_conf.llm_embed_dim", 3584, "96"),
    (TRAIN, "input_dim", 40, "80"),
    (DECODER, "2.encoder_upsample_rate", 2, "1"),
    (DECODER, "2.kv_cache_prefix_finetune", 1, "0"),
    (DECODER, "2.encoder_output_dim", 64, "32"),
    (DECODER, "0", 64, "32"),
    (CODEC, "resblock", "3", '"1"'),
    (CODEC, "residul_layer", 3, "1"),
    (CODEC, "global_tokens", [1, 2, 3, 4096], "47"),
    (CODEC, "global_tokens", [1], "4"),
    (CODEC, "n_codes", 16, "48"),
    (CODEC, "upsample_kernel_sizes", [11, 8, 4], "even"),
]


@pytest.mark.parametrize(("file", "key", "value", "expected"), VARIANTS, ids=lambda value: str(value)[-40:])
def test_what_would_change_the_computation_is_refused(
    folder: Path, file: str, key: str, value: object, expected: str
) -> None:
    put(folder / file, key, value)
    message = str(refusal(folder))
    assert str(folder / file) in message
    assert key.rsplit(".", 1)[-1].lstrip("0123456789.") in message
    assert expected in message


@pytest.mark.parametrize(
    ("file", "key", "guess"),
    [
        (CONFIG, "num_hidden_layer", "num_hidden_layers"),
        (VISION, "patchsize", "patch_size"),
        (PIXELS, "image_means", "image_mean"),
        (TRAIN, PARA + "attention-head", "transformer-attention-heads"),
        (TRAIN, "model_conf.adapter_type", "adpter_type"),
        (TRAIN, "input_dims", "input_dim"),
        (DECODER, "2.transformer_num_block", "transformer_num_blocks"),
        (CODEC, "n_code_group", "n_code_groups"),
    ],
)
def test_unknown_key_is_named_by_its_path_with_a_guess(folder: Path, file: str, key: str, guess: str) -> None:
    put(folder / file, key, 1)
    problem = refusal(folder)
    path = key.replace("2.", "[2].", 1) if file == DECODER else key
    assert problem.file == str(folder / file)
    assert f"'{path}' (did you mean '{guess}'?)" in problem.message
    assert f"--ignore-config-key {path}" in (problem.fix or "")
    assert read_config(folder, ignored_keys=[path]) == small_config()
    assert read_config(folder, ignored_keys=[path.rsplit(".", 1)[-1]]) == small_config()


def test_all_unknown_keys_are_listed_at_once(folder: Path) -> None:
    edit(folder / CONFIG, lambda data: data.update(first_oddity=1, second_oddity=2))
    assert "'first_oddity', 'second_oddity'" in str(refusal(folder))


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        (CONFIG, "num_hidden_layers", 10**9),
        (CONFIG, "vocab_size", 10**12),
        (CONFIG, "hidden_size", -96),
        (CONFIG, "num_key_value_heads", 0),
        (CONFIG, "rms_norm_eps", float("nan")),
        (CONFIG, "num_attention_heads", 7),
        (VISION, "num_hidden_layers", 10**9),
        (VISION, "image_size", 10**6),
        (VISION, "patch_size", 0),
        (TRAIN, PARA + "num-blocks", 10**9),
        (TRAIN, PARA + "attention-heads", 0),
        (TRAIN, "model_conf.kernel_size", 10**6),
        (TRAIN, "dataset_conf.resample_conf.resample_rate", 0),
        (DECODER, "2.transformer_num_blocks", 10**9),
        (CODEC, "upsample_rates", [10**6, 4, 3]),
        (CODEC, "global_code_num", 0),
        (CODEC, "resblock_kernel_sizes", [2, 5]),
        ("generation_config.json", "eos_token_id", [555, 10**6]),
        ("generation_config.json", "eos_token_id", []),
        ("generation_config.json", "eos_token_id", "<|im_end|>"),
    ],
)
def test_sizes_are_bounded(folder: Path, file: str, key: str, value: object) -> None:
    put(folder / file, key, value)
    problem = refusal(folder)
    assert problem.file == str(folder / file)
    assert key.rsplit(".", 1)[-1].rsplit("-", 1)[-1] in problem.message


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        (CONFIG, "hidden_size", "96", "str '96', expected int"),
        (TRAIN, PARA + "attention-dim", "48", "transformer-attention-dim is str '48', expected int"),
        (CODEC, "upsample_rates", 5, "expected a list"),
    ],
)
def test_types_are_not_coerced(folder: Path, file: str, key: str, value: object, words: str) -> None:
    put(folder / file, key, value)
    assert words in str(refusal(folder))


@pytest.mark.parametrize("file", [CONFIG, VISION, PIXELS, TRAIN, DECODER, CODEC])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\x00\x01", '{"a": 1, "a": 2}', "[" * 20_000])
def test_malformed_files_are_named(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    assert refusal(folder).file == str(folder / file)


@pytest.mark.parametrize("file", [CONFIG, VISION, PIXELS, TRAIN, DECODER, CODEC])
def test_missing_files_are_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    problem = refusal(folder)
    assert problem.file == str(folder / file)
    assert "missing" in problem.message


def leaves(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a parsed document."""
    pairs = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    return [(data, key) for key, _ in pairs] + [place for _, value in pairs for place in leaves(value)]


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 3), st.floats(), st.text(max_size=5), st.just([]),
    st.lists(st.integers(-1, 9), max_size=3), st.just({}),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_is_read_or_refused(template: Path, data: st.DataObject) -> None:
    path = template / data.draw(st.sampled_from([CONFIG, VISION, PIXELS, TRAIN, DECODER, CODEC]))
    before = path.read_text()
    is_yaml = path.suffix == ".yaml"
    document = yaml.safe_load(before) if is_yaml else json.loads(before)
    container, key = data.draw(st.sampled_from(leaves(document)))
    container[key] = data.draw(VALUES)
    path.write_text(yaml.safe_dump(document) if is_yaml else json.dumps(document))
    try:
        with contextlib.suppress(CheckpointError):  # any other exception fails the test
            read_config(template)
    finally:
        path.write_text(before)


def test_yaml_cannot_build_objects_or_unfold_without_end(folder: Path) -> None:
    (folder / TRAIN).write_text("a: !!python/object/apply:os.system ['touch owned']\n")
    assert "plain YAML" in str(refusal(folder))
    levels = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    (folder / TRAIN).write_text("\n".join(levels))
    assert "aliases" in str(refusal(folder))


def test_train_yaml_may_repeat_lists_by_alias(folder: Path) -> None:
    settings = train_yaml(small_config())
    shared = [0.9, 0.98]
    settings["optim_conf"], settings["scheduler_conf"] = {"betas": shared}, {"betas": shared}
    (folder / TRAIN).write_text(yaml.safe_dump(settings))
    assert "*id001" in (folder / TRAIN).read_text()
    assert read_config(folder) == small_config()


def test_a_huge_configuration_file_is_not_parsed(folder: Path) -> None:
    with (folder / CONFIG).open("ab") as file:
        file.truncate(1 << 30)
    assert "bytes" in str(refusal(folder))


@pytest.mark.parametrize("name", ["../elsewhere", "a/../../b", "..", "/", "", "a\0b"])
def test_component_names_do_not_climb_out(folder: Path, name: str) -> None:
    (folder.parent / "elsewhere").mkdir()
    put(folder / CONFIG, "mm_vision_tower", name)
    problem = refusal(folder)
    assert "mm_vision_tower" in problem.message
    assert problem.file == str(folder / CONFIG)


def test_component_folders_are_found_inside_or_beside_by_base_name(folder: Path, tmp_path: Path) -> None:
    beside = tmp_path / "InternViT-beside"
    beside.mkdir()
    inside = folder / "InternViT-300M-448px"
    assert component_folder(folder, "/training/machine/InternViT-300M-448px/", "mm_vision_tower") == inside
    assert component_folder(folder, "C:\\models\\InternViT-300M-448px", "mm_vision_tower") == inside
    assert component_folder(folder, "OpenGVLab/InternViT-beside", "mm_vision_tower") == beside
    outside = tmp_path / "other" / "InternViT-real"
    outside.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="InternViT-real"):
        component_folder(folder, str(outside), "mm_vision_tower")


def test_a_component_that_is_nowhere_says_how_to_get_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty cache"))
    put(folder / CONFIG, "mm_audio_encoder", "VITA-MLLM/VITA-1.5_AudioEnc")
    problem = refusal(folder)
    assert str(folder / "VITA-1.5_AudioEnc") in (problem.fix or "")
    assert "hf download VITA-MLLM/VITA-1.5_AudioEnc" in (problem.fix or "")


def test_resolve_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert resolve_checkpoint(str(folder)) == folder
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_checkpoint(str(folder / CONFIG))
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_checkpoint(str(tmp_path / "nothing"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty cache"))
    with pytest.raises(CheckpointError, match="Hugging Face did not give it") as caught:
        resolve_checkpoint("nobody/nothing-of-this-name")
    assert "network" in (caught.value.fix or "")
