"""A stage's graph parsed into the library's network; what the parser refuses is said in the graph's own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.build_log import BuildLog, library_logger
from sottovoce.runtime.engines.library import TITLE, EngineLibrary
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import StageName

DTYPES: Mapping[str, str] = {
    "float32": "FLOAT", "float16": "HALF", "int64": "INT64", "int32": "INT32", "int8": "INT8", "bool": "BOOL",
}  # fmt: skip
"""The manifest's types, as the library calls them."""
LONGEST_REASON = 400
ATTENTION = "ATTENTION_INPUT"
"""The kind of the layer that an attention begins with."""


@dataclass(frozen=True)
class Network:
    """A parsed graph. The builder, the parser and the logger must live as long as the network does."""

    stage: StageName
    library: EngineLibrary
    log: BuildLog
    builder: Any
    network: Any
    parser: Any
    logger: Any

    @property
    def inputs(self) -> list[Any]:
        """The network's inputs."""
        return [self.network.get_input(index) for index in range(self.network.num_inputs)]

    @property
    def layers(self) -> list[Any]:
        """The network's layers, in the order of the graph."""
        return [self.network.get_layer(index) for index in range(self.network.num_layers)]

    @contextmanager
    def fixed_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
        """While it is entered, inputs have these shapes, and with them all tensors have sizes."""
        before = {tensor.name: tuple(tensor.shape) for tensor in self.inputs}
        try:
            for tensor in self.inputs:
                tensor.shape = shapes.get(tensor.name, before[tensor.name])
            yield
        finally:
            for tensor in self.inputs:
                tensor.shape = before[tensor.name]


def parse_graph(library: EngineLibrary, bundle: Bundle, stage: StageName) -> Network:
    """Read a stage's graph, weights included.

    Raises:
        BackendError: the library found no GPU that it needs, refuses the graph (the node and the reason are named), or
            reads other inputs and outputs in it than the manifest has.
    """
    module, log = library.module, BuildLog()
    logger = library_logger(library, log)
    try:
        builder = module.Builder(logger)
    except Exception as problem:  # the library's own errors are of no common kind
        raise BackendError(
            f"{TITLE[library.name]} {library.version} cannot start: {_last(log.errors) or problem}",
            fix="check the NVIDIA driver and the GPU with nvidia-smi",
        ) from problem
    network = builder.create_network(library.network_flags)
    parser = module.OnnxParser(network, logger)
    path = bundle.file(bundle.graph(stage).file)
    if not parser.parse_from_file(str(path)):
        raise _refused(library, stage, path, parser, log)
    parsed = Network(stage, library, log, builder, network, parser, logger)
    _check_contract(parsed, bundle, path)
    _let_attention_be_decomposed(parsed)
    return parsed


def _let_attention_be_decomposed(parsed: Network) -> None:
    """Where there is no kernel for an attention (fp32, or heads of 16), it becomes products and a softmax.

    Without this leave, TensorRT-RTX 1.7 refuses such a graph; where there is a kernel, it is used all the same.
    """
    kind = getattr(parsed.library.module, "IAttentionInputLayer", None)
    for layer in parsed.layers if kind is not None else ():
        if layer.type.name == ATTENTION:
            layer.__class__ = kind
            layer.attention.decomposable = True


def _refused(library: EngineLibrary, stage: StageName, path: Path, parser: Any, log: BuildLog) -> BackendError:
    title = f"{TITLE[library.name]} {library.version}"
    if not parser.num_errors:
        reason = _last(log.errors) or "it gave no reason"
        return BackendError(f"{title} cannot parse stage {stage!r}: {reason}", file=path, fix=_fix(library))
    error = parser.get_error(0)
    node, operator = _said(error, "node_name"), _said(error, "node_operator")
    where = f" at node {node!r} ({operator})" if node or operator else ""
    reason = _shortened(str(error.desc()))
    return BackendError(f"{title} cannot parse stage {stage!r}{where}: {reason}", file=path, fix=_fix(library))


def _fix(library: EngineLibrary) -> str:
    if library.name == "tensorrt" and library.version.startswith("10."):
        return "export the checkpoint with --target jetpack6, which uses older operators, or install a newer TensorRT"
    return "export or quantize this stage in another precision, such as --precision STAGE=fp16, and build again"


def _said(error: Any, what: str) -> str:
    """A detail of a parser's error; TensorRT 10.3 has fewer of them."""
    value = getattr(error, what, None)
    return str(value()) if callable(value) else ""


def _shortened(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "catchCudaError" not in line]
    joined = " ".join(lines)
    return joined if len(joined) <= LONGEST_REASON else joined[: LONGEST_REASON - 1] + "…"


def _last(errors: list[str]) -> str:
    return _shortened(errors[-1]) if errors else ""


def _check_contract(parsed: Network, bundle: Bundle, path: Path) -> None:
    """The runtime feeds by the manifest's names and types: the network must have the same."""
    spec = bundle.graph(parsed.stage)
    outputs = [parsed.network.get_output(index) for index in range(parsed.network.num_outputs)]
    for what, tensors, wanted in (("inputs", parsed.inputs, spec.inputs), ("outputs", outputs, spec.outputs)):
        found = {tensor.name: tensor.dtype.name for tensor in tensors}
        expected = {tensor.name: DTYPES[tensor.dtype] for tensor in wanted}
        if found != expected:
            differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            name = differing[0]
            raise BackendError(
                f"the {what} of stage {parsed.stage!r} differ from the manifest: {name!r} is "
                f"{found.get(name, 'not there')} in the network, expected {expected.get(name, 'none of that name')}",
                file=path,
                fix="export the checkpoint again with this version of sottovoce",
            )
