"""Caches in int8 and in float16: logits as with float32, rewinding and growing as with it, in the size that is said."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from changed_bundle import GraphPass, change_bundle, change_stage, export_stage
from click.testing import CliRunner

from sottovoce.calibration.quantization.cache_precision import CacheScales, cache_tensors, narrow_cache, shrink_cache
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.half_precision import narrow_floats
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.commands.inspect import inspect_command
from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.stages.decoder import DecoderStage
from sottovoce.runtime.tensor_dump import TensorDump

DECODERS: tuple[StageName, ...] = ("language_model", "speech_codes")
DIALECTS = ("portable", "portable-23", "cpu")
PREFIX = 20
MARGIN = 0.1
COSINE = {"int8": 0.999, "float16": 0.999999}
"""Least of any step's; found: 0.9995 and 0.9999999 for the language model, 0.9999 and 0.99999997 for speech codes."""
LARGEST = {"int8": -128, "float16": np.finfo(np.float16).max}
EMPTY = CacheScales((), ())


@dataclass(frozen=True)
class Case:
    """A decoder in float32, what to append to it, and the scales of its channels on other rows than those."""

    bundle: Bundle
    stage: StageName
    rows: np.ndarray
    scales: CacheScales

    def changed(self, folder: Path, change: GraphPass) -> Bundle:
        return change_stage(self.bundle, self.stage, folder, change)

    def shrunk(self, folder: Path) -> Bundle:
        return self.changed(folder, lambda graph: shrink_cache(graph, self.scales))


def appended(decoder: DecoderStage, cache: KVCache, rows: np.ndarray, prefix: int = 1) -> np.ndarray:
    """Logits after a prefix and after each row behind it."""
    ends = [prefix, *range(prefix + 1, len(rows) + 1)]
    return np.stack([decoder.append(rows[start:end], cache) for start, end in zip([0, *ends], ends, strict=False)])


def logits_of(bundle: Bundle, stage: StageName, rows: np.ndarray) -> np.ndarray:
    decoder = DecoderStage(open_session(bundle, stage, threads=1))
    return appended(decoder, decoder.create_cache(), rows, PREFIX)


def measured(bundle: Bundle, stage: StageName, rows: np.ndarray) -> CacheScales:
    """Scales that cover the keys and values of these rows."""
    decoder = DecoderStage(open_session(bundle, stage, threads=1))
    cache = decoder.create_cache()
    appended(decoder, cache, rows, PREFIX)
    contents = cache.snapshot().contents
    layers = range(bundle.graph(stage).cache.layers)
    keys, values = ([np.abs(contents[f"{kind}.{n}"]).max((0, 2)) for n in layers] for kind in ("key", "value"))
    return CacheScales.covering(keys, values)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The least of all rows'."""
    products = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    return float(products.min())


def rows_of(bundle: Bundle, golden: dict[str, np.ndarray], codes: list[int]) -> dict[StageName, tuple[np.ndarray, ...]]:
    """For each decoder what to append, a prompt and teacher-forced steps, and other rows, to measure scales on."""
    speech = bundle.manifest.speech
    table = EmbeddingTable(bundle, bundle.manifest.code_embeddings)
    begin, start = table.rows([speech.begin_id]), table.rows([speech.start_id])
    prefix, other_codes = golden["speech.nar"], np.random.default_rng(0).integers(0, speech.codes, 128)
    return {
        "language_model": (
            np.concatenate([golden["llm.audio.embeddings"], golden["llm.text.embeddings"]]),
            golden["llm.image_audio.embeddings"],
        ),
        "speech_codes": (
            np.concatenate([begin, prefix, start, table.rows(codes)]),
            np.concatenate([begin, prefix[::-1], start, table.rows(other_codes)]),
        ),
    }


@pytest.fixture(scope="module")
def rows(
    tiny_bundle: Path, golden: dict[str, np.ndarray], golden_json: dict[str, Any]
) -> dict[StageName, tuple[np.ndarray, ...]]:
    return rows_of(Bundle.open(tiny_bundle), golden, golden_json["speech"]["greedy_codes"])


@pytest.fixture(scope="module", params=[(stage, dialect) for stage in DECODERS for dialect in DIALECTS], ids="-".join)
def case(
    request: pytest.FixtureRequest,
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    rows: dict[StageName, tuple[np.ndarray, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    stage, dialect = request.param
    folder = tmp_path_factory.mktemp("case")
    bundle = export_stage(tiny_checkpoint, Bundle.open(tiny_bundle), folder, stage, dialect)
    appended_rows, others = rows[stage]
    return Case(bundle, stage, appended_rows, measured(bundle, stage, others))


@pytest.fixture(scope="module")
def simple(tiny_bundle: Path, rows: dict[StageName, tuple[np.ndarray, ...]]) -> Case:
    bundle, stage = Bundle.open(tiny_bundle), DECODERS[0]
    return Case(bundle, stage, rows[stage][0], measured(bundle, stage, rows[stage][1]))


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_logits_stay_close_over_sixty_steps(case: Case, dtype: str, tmp_path: Path) -> None:
    found = case.shrunk(tmp_path) if dtype == "int8" else case.changed(tmp_path, narrow_cache)
    spec = found.graph(case.stage)
    cached = [tensor for tensor in (*spec.inputs, *spec.outputs) if tensor.role.startswith(("past_", "present_"))]
    assert {tensor.dtype for tensor in cached} == {dtype} == {spec.cache.dtype}
    assert len(cached) == 4 * spec.cache.layers
    expected = logits_of(case.bundle, case.stage, case.rows)
    logits = logits_of(found, case.stage, case.rows)
    assert len(logits) >= 62
    assert not np.array_equal(logits, expected)
    assert cosine(logits, expected) > COSINE[dtype]


def test_int8_in_a_float16_graph(case: Case, tmp_path: Path) -> None:
    def change(graph: StageGraph) -> None:
        narrow_floats(graph)
        shrink_cache(graph, case.scales)

    found = case.changed(tmp_path, change)
    assert (found.graph(case.stage).floats, found.graph(case.stage).cache.dtype) == ("fp16", "int8")
    expected = logits_of(case.bundle, case.stage, case.rows)
    assert cosine(logits_of(found, case.stage, case.rows), expected) > COSINE["int8"]


def test_the_other_order_gives_the_same(simple: Case, tmp_path: Path) -> None:
    def floats_first(graph: StageGraph) -> None:
        narrow_floats(graph)
        shrink_cache(graph, simple.scales)

    def cache_first(graph: StageGraph) -> None:
        shrink_cache(graph, simple.scales)
        narrow_floats(graph)

    bundles = [simple.changed(tmp_path / change.__name__, change) for change in (floats_first, cache_first)]
    first, second = (bundle.graph(simple.stage) for bundle in bundles)
    assert first == second
    logits = [logits_of(bundle, simple.stage, simple.rows) for bundle in bundles]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-2)


def test_bytes_are_half_of_float16s(simple: Case, tmp_path: Path) -> None:
    bundles = {
        "float32": simple.bundle,
        "float16": simple.changed(tmp_path / "float16", narrow_cache),
        "int8": simple.shrunk(tmp_path / "int8"),
    }
    sizes = {}
    for name, bundle in bundles.items():
        cache = KVCache(open_session(bundle, simple.stage, threads=1))
        sizes[name] = sum(values.nbytes for values in cache._buffers.read(cache.capacity).values())
    layout = simple.bundle.graph(simple.stage).cache
    assert sizes["int8"] == 2 * layout.layers * layout.kv_heads * layout.head_size * 256
    assert sizes["int8"] == 0.5 * sizes["float16"] == 0.25 * sizes["float32"]


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_a_rewound_cache_goes_on_as_one_that_went_straight(case: Case, dtype: str, tmp_path: Path) -> None:
    bundle = case.shrunk(tmp_path) if dtype == "int8" else case.changed(tmp_path, narrow_cache)
    decoder = DecoderStage(open_session(bundle, case.stage, threads=1))
    straight, rewound = decoder.create_cache(), decoder.create_cache()
    expected = appended(decoder, straight, case.rows[:60], PREFIX)
    appended(decoder, rewound, case.rows[:40], PREFIX)
    appended(decoder, rewound, case.rows[60:80][::-1])  # what was heard wrong
    snapshot = rewound.snapshot()
    rewound.rewind(40)
    np.testing.assert_array_equal(appended(decoder, rewound, case.rows[40:60]), expected[-20:])
    rewound.resume(snapshot)
    assert snapshot.contents["key.0"].dtype == np.dtype(dtype)
    rewound.rewind(40)
    np.testing.assert_array_equal(appended(decoder, rewound, case.rows[40:60]), expected[-20:])


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_what_lies_behind_the_length_is_not_seen(case: Case, dtype: str, tmp_path: Path) -> None:
    """Unused positions hold the largest values of the type, also in what a growing cache takes anew."""
    bundle = case.shrunk(tmp_path) if dtype == "int8" else case.changed(tmp_path, narrow_cache)
    session = open_session(bundle, case.stage, threads=1)
    decoder = DecoderStage(session)
    expected = appended(decoder, KVCache(session, step=32), case.rows, PREFIX)
    cache = KVCache(session, step=32)
    start = 0
    for end, logits in zip(range(PREFIX, len(case.rows) + 1), expected, strict=True):
        for values in cache._buffers._buffers.values():
            values[:, :, cache.length :] = LARGEST[dtype]
        np.testing.assert_array_equal(decoder.append(case.rows[start:end], cache), logits)
        start = end
    layout = case.bundle.graph(case.stage).cache
    assert cache.capacity == (layout.max_length if layout.fixed_capacity else -(-len(case.rows) // 32) * 32)


def test_a_dead_channel_has_the_scale_1(simple: Case, tmp_path: Path) -> None:
    keys = list(simple.scales.keys)
    keys[1] = keys[1].copy()
    keys[1][0, 3] = 0
    scales = replace(simple.scales, keys=tuple(keys))
    bundle = simple.changed(tmp_path, lambda graph: shrink_cache(graph, scales))
    model = onnx.load(str(bundle.path / bundle.graph(simple.stage).file))
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    expected = np.where(keys[1] == 0, 1, keys[1])
    np.testing.assert_array_equal(stored["present.1.key.scale"][0, :, 0], expected)
    assert np.isfinite(logits_of(bundle, simple.stage, simple.rows)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
@pytest.mark.parametrize(("kind", "layer"), [("keys", 0), ("values", 2)])
def test_a_scale_that_will_not_do_is_named(simple: Case, kind: str, layer: int, bad: float) -> None:
    arrays = [np.array(scale) for scale in getattr(simple.scales, kind)]
    arrays[layer][1, 5] = bad
    scales = replace(simple.scales, **{kind: tuple(arrays)})
    graph = StageGraph(simple.bundle, simple.stage)
    with pytest.raises(SottovoceError, match=rf"'{kind[:-1]}\.{layer}' of stage 'language_model', 1 are"):
        shrink_cache(graph, scales)


def test_scales_of_another_model_are_refused(simple: Case) -> None:
    graph = StageGraph(simple.bundle, simple.stage)
    narrow = tuple(scale[:, :16] for scale in simple.scales.values)
    with pytest.raises(SottovoceError, match=r"'value\.0'.*\(2, 16\), expected \(2, 32\)"):
        shrink_cache(graph, replace(simple.scales, values=narrow))
    with pytest.raises(SottovoceError, match="0 keys and 0 values, and stage 'language_model' has 3 layers"):
        shrink_cache(graph, EMPTY)


def test_what_is_small_already(simple: Case, tmp_path: Path) -> None:
    for change in (narrow_cache, lambda graph: shrink_cache(graph, simple.scales)):
        graph = StageGraph(simple.shrunk(tmp_path), simple.stage)
        with pytest.raises(SottovoceError, match="'language_model' is int8 already"):
            change(graph)
    graph = StageGraph(simple.changed(tmp_path / "float16", narrow_cache), simple.stage)
    nodes = list(graph.nodes)
    narrow_cache(graph)
    assert graph.nodes == nodes


def test_a_stage_without_a_cache_is_refused(tiny_bundle: Path) -> None:
    graph = StageGraph(Bundle.open(tiny_bundle), "codec")
    for change in (narrow_cache, lambda graph: shrink_cache(graph, EMPTY)):
        with pytest.raises(SottovoceError, match="'codec' has no KV cache"):
            change(graph)


def test_where_scales_are_measured(simple: Case) -> None:
    """The values written to the cache, by name: keys behind their rotation."""
    tensors = cache_tensors(StageGraph(simple.bundle, simple.stage))
    assert [tensor.role for tensor in tensors] == [f"{kind}.{n}" for n in range(3) for kind in ("key", "value")]
    assert tensors[2].update == "layers.1.self_attn.key"
    assert (tensors[3].past, tensors[3].present) == ("past_key_values.1.value", "present.1.value")


def test_a_key_far_into_the_context_is_covered() -> None:
    """A pair of channels that was measured at one angle comes to lie at another."""
    key = np.array([[3.0, 0.5, 4.0, 0.0]], np.float32)
    scales = CacheScales.covering([key], [key])
    np.testing.assert_allclose(scales.keys[0] * 127, [[6.0, 0.6, 6.0, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(scales.values[0] * 127, 1.2 * key, rtol=1e-6)


def test_a_conversation_with_int8_caches(
    tiny_bundle: Path, rows: dict[StageName, tuple[np.ndarray, ...]], golden_json: dict[str, Any], tmp_path: Path
) -> None:
    """The runtime as it is: greedy ids as long as the reference is sure, a second turn, speech, and `inspect`."""
    tiny = Bundle.open(tiny_bundle)
    scales = {stage: measured(tiny, stage, others) for stage, (_, others) in rows.items()}
    changes = {stage: lambda graph, of=of: shrink_cache(graph, of) for stage, of in scales.items()}
    bundle = Bundle.open(change_bundle(tiny_bundle, tmp_path / "tiny.bundle", changes))
    brief = replace(bundle.manifest.speech, max_codes=12)  # random weights never say that they are done
    with Assistant(Model(replace(bundle, manifest=replace(bundle.manifest, speech=brief)), threads=1)) as assistant:
        conversation = assistant.conversation(
            "You are a helpful assistant.", greedy=True, max_new_tokens=24, speech=False
        )
        *_, done = conversation.ask("What is the time?")
        expected = golden_json["llm"]["text"]
        sure = next(n for n, margin in enumerate(expected["margin"]) if margin <= MARGIN)
        assert sure >= 5
        assert list(done.tokens[:sure]) == expected["greedy"][:sure]
        *_, again = conversation.ask("And now?")
        assert again.reason in {"stop", "length"}
        codes = TensorDump()
        list(assistant.say(golden_json["speech"]["text"], greedy=True, dump=codes))
        assert codes.tensors()["speech.codes"].tolist()[:10] == golden_json["speech"]["greedy_codes"][:10]
    result = CliRunner().invoke(inspect_command, [str(bundle.path), "--json"], catch_exceptions=False)
    caches = {stage: graph["cache"] for stage, graph in json.loads(result.stdout)["graphs"].items()}
    assert {stage for stage, cache in caches.items() if cache} == set(DECODERS)
    assert all(caches[stage]["dtype"] == "int8" for stage in DECODERS)
