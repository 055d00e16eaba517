"""A decoder's layers as one operator: of ONNX Runtime's fifteen a layer, each costs some microseconds of its own.

Between two operators ONNX Runtime looks up, allocates, releases and wakes its threads, and where a layer's weights are
megabytes all that this takes has left the processor's caches by the next one: of 6.6 ms for a token of SmolLM2-135M
with weights of 4 bits the weights and the cache took 3.1 (two cores of a Xeon with AVX-512). Where a graph's products
have integer weights, it is rewritten when it is loaded: layers that follow one another become `DecoderLayers`, halves
that have no other half beside them `AttentionBlock` and `GatedBlock`. The bundle's graph is never changed, and computes
the same without the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sottovoce.runtime.graph_files.graph_nodes import GraphNodes, write_node
from sottovoce.runtime.graph_files.messages import MessageError
from sottovoce.runtime.kernels.layer_halves import Half, LayerHalves

OWN_DOMAIN = "sottovoce"
DECODER_LAYERS, ATTENTION_BLOCK, GATED_BLOCK = "DecoderLayers", "AttentionBlock", "GatedBlock"
INTEGER_WEIGHTS = b"DequantizeLinear"
MOST_BYTES = 64 << 20
"""Of a graph without its weights; larger ones are left alone."""

Run = list[Half]
"""Halves that become one operator: whole layers, or one half."""


def fused_graph(path: Path, threads: int, *, whole_layers: bool = True) -> bytes | None:
    """The model in a file with its decoder layers fused; None where there are none to fuse, or the file is no model.

    Args:
        path: the file.
        threads: how many the session will have that computes it.
        whole_layers: all that follow one another as one operator; else each half of each layer is one of its own,
            which takes longer, and can be timed.

    Raises:
        OSError: the file cannot be read.
    """
    if path.stat().st_size > MOST_BYTES:
        return None
    model = path.read_bytes()
    if INTEGER_WEIGHTS not in model:
        return None
    try:
        graph = GraphNodes(model)
        halves = list(LayerHalves(graph).found())
        if not halves:
            return None
        nodes: dict[int, bytes | None] = {node.place: None for half in halves for node in half.nodes}
        for run in _Runs(graph, halves).found() if whole_layers else [[half] for half in halves]:
            nodes[max(place for half in run for place in half.places)] = _written(run, threads)
        weights = {name: graph.weights[name].as_bytes() for half in halves for name in half.weights}
        return graph.rewritten(nodes, weights, OWN_DOMAIN)
    except MessageError:  # ONNX Runtime will say what is wrong with it
        return None


class _Runs:
    """Looks for layers that follow one another, of which only the rows go from half to half."""

    def __init__(self, graph: GraphNodes, halves: Sequence[Half]) -> None:
        self._graph = graph
        self._left = {half.result: half for half in halves}
        self._readers = {half.contract.hidden: half for half in halves}
        """Of several halves that read the same rows the last one, which then does not read them alone."""

    def found(self) -> Iterator[Run]:
        """Each half once."""
        while self._left:
            first = next(iter(self._left.values()))
            yield self._layers(first) or [self._left.pop(first.result)]

    def _layers(self, first: Half) -> Run:
        """Whole layers from a first half on."""
        run: Run = []
        attention: Half | None = first
        while attention is not None and self._continues(first, attention):
            gate = self._after(attention)
            if gate is None or gate.attends or gate.epsilon != first.epsilon:
                break
            run += [self._left.pop(half.result) for half in (attention, gate)]
            attention = self._after(gate)
        return run

    def _continues(self, first: Half, attention: Half) -> bool:
        """Whether it differs only in weights and cache, and its cache comes from outside."""
        return (
            attention.attends
            and attention.contract.positions == first.contract.positions
            and attention.contract.attributes == first.contract.attributes
            and all(self._graph.maker(name) is None for name in attention.past)
        )

    def _after(self, half: Half) -> Half | None:
        """The one half that reads another's rows, if nobody else does, and it is not taken yet."""
        one = self._readers.get(half.result)
        if one is None or one.result not in self._left or half.result in self._graph.results:
            return None
        return one if all(reader.place in one.places for reader in self._graph.readers(half.result)) else None


def _written(run: Run, threads: int) -> bytes:
    """The node that takes the place of a run's."""
    first, last = run[0].contract, run[-1]
    operator = DECODER_LAYERS if len(run) > 1 else ATTENTION_BLOCK if last.attends else GATED_BLOCK
    inputs = (first.hidden, *first.positions, *(name for half in run for name in half.contract.own))
    caches = tuple(name for half in run for name in half.contract.outputs[1:])
    return write_node(operator, OWN_DOMAIN, inputs, (last.result, *caches), {**first.attributes, "threads": threads})
