"""How ONNX Runtime is set up for a graph.

Weights in floating point stay in the page cache: prepacking is off, because a packed copy costs seconds to make and
cannot be shared or dropped, and products with one row (decoding) gain nothing from it. Integer weights are packed:
their kernels need it (a 4-bit product of one row takes 0.3 ms packed and 260 ms not, 1536 × 8960 weights, one core of
an EPYC). Memory patterns are off, since one is kept for every sequence length that ever occurs.
"""

from __future__ import annotations

from typing import Any

import onnxruntime

from sottovoce.runtime.cores import available_cores
from sottovoce.runtime.manifest import GraphSpec

PROVIDER = "CPUExecutionProvider"
LOG_ERRORS_ONLY = 3
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""Setting of a session: where the weights lie of a graph that is given as bytes."""
INTEGER_WEIGHTS = {
    # `DequantizeLinear` before a product becomes one kernel, MatMulNBits, that rounds its other factor to 8 bits.
    "session.qdq_matmulnbits_accuracy_level": "4",
    # Where a whole channel has one scale, the kernel still works by blocks: larger ones are faster (138 against 180 ms
    # for 256 rows of the product above).
    "session.qdq_matmulnbits_block_size": "128",
}
WEIGHTS_STAY = ("fp32", "int8")
"""Precisions whose weights are computed with as they are stored; others are widened, or laid out for a kernel."""
NO_SPINNING = {
    # Waiting threads sleep: spinning would take the cores from the other stages.
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
}
BRIEF_SPINNING = {
    # A step of a decoder is hundreds of operators of some microseconds: waking a thread for each costs more than they
    # do (131 tokens a second without, 213 with; 100 µs and no limit give the same). It ends with the run, so that the
    # cores are the other stages' in between.
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "20",
    "session.force_spinning_stop": "1",
    "session.inter_op.allow_spinning": "0",
}


def knows_spin_duration(version: str) -> bool:
    """Whether this ONNX Runtime can limit spinning: 1.32 does; 1.23 passes over what it does not know, and would spin
    on and on."""
    return tuple(int(part) for part in version.split(".")[:2]) >= (1, 32)


def session_options(spec: GraphSpec, threads: int | None) -> Any:
    """For a graph with this contract, on so many threads; None: on all cores that this process may use."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    # Decoders run thousands of times and keep their working memory; the others run now and then and give it back.
    options.enable_cpu_mem_arena = spec.cache is not None
    for key, value in config_entries(spec).items():
        options.add_session_config_entry(key, value)
    return options


def config_entries(spec: GraphSpec) -> dict[str, str]:
    """The settings among them that ONNX Runtime knows by name."""
    spins = spec.cache is not None and knows_spin_duration(onnxruntime.__version__)
    weights = INTEGER_WEIGHTS if spec.has_integer_weights else {"session.disable_prepacking": "1"}
    return {**(BRIEF_SPINNING if spins else NO_SPINNING), **weights}
