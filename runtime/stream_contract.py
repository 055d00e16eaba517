"""What a streaming audio encoder's entry in the manifest must say for its state to go round."""

from __future__ import annotations

from pathlib import Path

from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import AudioFrontEnd, AudioStreamSpec, GraphSpec, TensorSpec

ATTENDED = ("keys", "key_biases", "values")
"""What attention keeps of each frame: (layers, heads, frames, size) each."""
FIX = "export the checkpoint again with this version of sottovoce"


def state_roles(stream: AudioStreamSpec, time: str) -> list[str]:
    """Roles of the state's tensors for `time` "past" or "present"."""
    tail = () if stream.first_tail_frames is None else ("frames",)
    return [f"{time}_{kind}" for kind in (*ATTENDED, *tail)]


def stream_inputs(stream: AudioStreamSpec) -> list[str]:
    """Roles of what the graph takes beside the features."""
    return [*state_roles(stream, "past"), "position", *(["padding"] if stream.padding_frames else [])]


def check_stream(stage: str, spec: GraphSpec, front_end: AudioFrontEnd, file: Path) -> None:
    """Check that a stream's numbers agree with its graph's tensors (whose roles were checked) and the front end.

    Raises:
        BundleError: names the stage, what it has and what it must have.
    """
    stream = spec.stream
    if stream is None:
        return
    for rule, holds in {**_numbers(stream, front_end), **_shapes(stream, spec)}.items():
        if not holds:
            raise BundleError(f"the stream of graph {stage!r}: {rule}", file=file, fix=FIX)


def _numbers(stream: AudioStreamSpec, front_end: AudioFrontEnd) -> dict[str, bool]:
    visible, tail, step = stream.visible_frames, stream.first_tail_frames, stream.step_frames
    return {
        f"stride_frames ({stream.stride_frames}) must be from 1 to receptive_frames ({stream.receptive_frames})": (
            1 <= stream.stride_frames <= stream.receptive_frames
        ),
        f"receptive_frames ({stream.receptive_frames}) must be audio.min_frames ({front_end.min_frames})": (
            stream.receptive_frames == front_end.min_frames
        ),
        f"step_frames ({step}) must be positive, first_step_frames ({stream.first_step_frames}) a multiple of it": (
            step > 0 and stream.first_step_frames > 0 and stream.first_step_frames % step == 0
        ),
        f"visible_frames ({visible}) must not be negative": visible is None or visible >= 0,
        f"first_tail_frames ({tail}) must not be negative": tail is None or tail >= 0,
        f"padding_frames ({stream.padding_frames}) must not be negative": stream.padding_frames >= 0,
        f"prompt_tokens ({stream.prompt_tokens}) must be audio.prompt_tokens ({front_end.prompt_tokens})": (
            stream.prompt_tokens == front_end.prompt_tokens
        ),
    }


def _shapes(stream: AudioStreamSpec, spec: GraphSpec) -> dict[str, bool]:
    """Every tensor of the state must be the same going in and coming out, and its size known but for the frames."""
    taken = {tensor.role: tensor for tensor in spec.inputs}
    given = {tensor.role: tensor for tensor in spec.outputs}
    rules = {}
    for kind in ATTENDED:
        past = taken[f"past_{kind}"]
        rules[f"{past.name!r} is {past.dtype} {past.shape}, expected float32 (layers, heads, symbol, size)"] = (
            _is_state(past, rank=4, axis=2) and isinstance(past.shape[2], str)
        )
    if stream.first_tail_frames is not None:
        tail = taken["past_frames"]
        size = tail.shape[1] if len(tail.shape) > 1 else None
        rules[f"{tail.name!r} is {tail.dtype} {tail.shape}, expected float32 (1, frames, width)"] = _is_state(
            tail, rank=3, axis=1
        ) and (isinstance(size, str) or size == stream.first_tail_frames)
    if stream.padding_frames:
        padding = taken["padding"]
        rules[f"{padding.name!r} is {padding.dtype} {padding.shape}, expected float32 (1, symbol, channels)"] = (
            _is_state(padding, rank=3, axis=1) and isinstance(padding.shape[1], str)
        )
    position = taken["position"]
    rules[f"{position.name!r} is {position.dtype} {position.shape}, expected int64 (1,)"] = (
        position.dtype == "int64" and position.shape == (1,)
    )
    for role in state_roles(stream, "past"):
        past, present = taken[role], given[role.replace("past", "present")]
        axis = 1 if role == "past_frames" else 2
        rules[f"{present.name!r} is {present.shape}, which {past.name!r} {past.shape} cannot take"] = (
            present.dtype == past.dtype and _without(present, axis) == _without(past, axis)
        )
    return rules


def _is_state(tensor: TensorSpec, rank: int, axis: int) -> bool:
    sizes = _without(tensor, axis)
    return tensor.dtype == "float32" and len(tensor.shape) == rank and all(isinstance(s, int) and s > 0 for s in sizes)


def _without(tensor: TensorSpec, axis: int) -> tuple[int | str, ...]:
    return tensor.shape[:axis] + tensor.shape[axis + 1 :]
