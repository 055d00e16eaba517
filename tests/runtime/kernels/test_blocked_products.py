"""Products with weights in 4 and 8 bits are exactly those of rounded rows, for every shape of the rest."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from kernel_graphs import BlockedWeights, needs_kernels, session

pytestmark = needs_kernels


def rows_of(count: int, depth: int, seed: int = 7) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, depth)) * random.uniform(0.01, 30, size=(count, 1))).astype(np.float32)


def assert_products(weights: BlockedWeights, rows: np.ndarray, graph: bytes, *, added: np.ndarray | float = 0) -> None:
    (result,) = session(graph).run(None, {"rows": rows[None]})
    expected = weights.product(rows) + added
    # What float32 sums of that many blocks may be off, against the size of a row's largest value.
    assert np.abs(result[0] - expected).max(axis=1) == pytest.approx(0, abs=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 21])
@pytest.mark.parametrize(
    ("depth", "columns", "block"),
    [(32, 16, 32), (576, 200, 32), (100, 37, 32), (1536, 64, 64), (192, 5, 128), (320, 48, 256)],
)
def test_products_are_those_of_rounded_rows(bits: int, count: int, depth: int, columns: int, block: int) -> None:
    weights = BlockedWeights(bits, depth, columns, block)
    assert_products(weights, rows_of(count, depth), weights.graph())


@pytest.mark.parametrize("bits", [4, 8])
def test_a_bias_is_added(bits: int) -> None:
    weights = BlockedWeights(bits, 96, 50, 32)
    assert_products(weights, rows_of(9, 96), weights.graph(bias=True), added=weights.bias)


def test_rows_of_zeros_and_no_rows() -> None:
    weights = BlockedWeights(4, 96, 50, 32)
    loaded = session(weights.graph())
    assert not loaded.run(None, {"rows": np.zeros((1, 2, 96), np.float32)})[0].any()
    assert loaded.run(None, {"rows": np.zeros((1, 0, 96), np.float32)})[0].shape == (1, 0, 50)


@pytest.mark.parametrize(("bits", "middle"), [(4, 8), (8, 128)])
def test_zero_points_in_the_middle_are_none(bits: int, middle: int) -> None:
    weights = BlockedWeights(bits, 96, 50, 32)
    assert_products(weights, rows_of(2, 96), weights.graph(zero_point=middle))


@pytest.mark.parametrize(("bits", "elsewhere"), [(4, 7), (8, 127)])
def test_other_zero_points_are_refused(bits: int, elsewhere: int) -> None:
    with pytest.raises(Exception, match="symmetric weights"):
        session(BlockedWeights(bits, 96, 50, 32).graph(zero_point=elsewhere))


def test_small_blocks_are_refused() -> None:
    with pytest.raises(Exception, match="blocks of 32"):
        session(BlockedWeights(4, 96, 50, 16).graph())


@pytest.mark.parametrize(
    "lie", [{"K": 128}, {"K": 64}, {"N": 51}, {"N": 0}, {"K": -96}, {"bits": 8}, {"block_size": 64}]
)
def test_attributes_that_the_tensors_belie_are_refused(lie: dict[str, int]) -> None:
    """A graph is not trusted: nothing is read behind a tensor's end."""
    with pytest.raises(Exception, match=r"MatMulNBits: (weights, scales|K or N)"):
        session(BlockedWeights(4, 96, 50, 32).graph(**lie))


def test_rows_of_another_length_are_refused() -> None:
    weights = BlockedWeights(4, 96, 50, 32)
    graph = onnx.load_from_string(weights.graph())
    graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    with pytest.raises(Exception, match="not as long as K says"):
        session(graph.SerializeToString()).run(None, {"rows": np.ones((1, 1, 64), np.float32)})


def test_it_is_ours_that_computes() -> None:
    """ONNX Runtime's own takes what ours refuses."""
    session(BlockedWeights(4, 96, 50, 16).graph(), ours=False)


def test_sessions_in_several_threads_share_slabs() -> None:
    weights = [BlockedWeights(4, 576, 300, 32, seed) for seed in range(8)]
    rows, start = rows_of(1, 576), threading.Barrier(len(weights))

    def ask(one: BlockedWeights) -> np.ndarray:
        start.wait()
        for _ in range(5):  # made and released again while the others compute
            (result,) = session(one.graph(), threads=1).run(None, {"rows": rows[None]})
        return result

    with ThreadPoolExecutor(len(weights)) as pool:
        for one, result in zip(weights, pool.map(ask, weights), strict=True):
            assert result[0] == pytest.approx(one.product(rows), abs=2e-6 * np.abs(one.product(rows)).max())


def test_released_sessions_give_their_memory_back() -> None:
    graph = BlockedWeights(8, 2048, 4096, 32).graph()
    session(graph)
    before = slab_kilobytes()
    for _ in range(4):
        session(graph)
    assert slab_kilobytes() == before


def slab_kilobytes() -> int:
    """Of this process's mappings that are in huge pages or could be, as the kernels ask for them."""
    total, flags_of = 0, 0
    with open("/proc/self/smaps", encoding="ascii") as mappings:
        for line in mappings:
            if line.startswith("Size:"):
                flags_of = int(line.split()[1])
            elif line.startswith("VmFlags:") and " hg" in line:
                total += flags_of
    return total
