"""One colour a stage and a kind of layer, the same in every picture."""

from __future__ import annotations

STAGE_COLORS = {
    "audio_features": "#7a9e9f", "image_features": "#7a9e9f", "audio_encoder": "#2f6f8f", "vision_encoder": "#56876d",
    "prefill": "#8a5a83", "decode": "#b3541e", "language_model": "#b3541e", "speech_text": "#c9a227",
    "speech_codes": "#a1763b", "codec": "#4a5759", "played": "#9fb8a3",
}  # fmt: skip
LAYER_COLORS = (
    "#2f6f8f", "#b3541e", "#c9a227", "#d9b84a", "#5b8fa8", "#8a5a83", "#56876d", "#4a5759", "#7a9e9f", "#a1763b",
    "#d8dee4",
)  # fmt: skip
OTHER_COLOR = "#8c959f"


def stage_color(name: str) -> str:
    """Of a stage, a span, a call such as `language_model.step`, or `decode at 256`."""
    return STAGE_COLORS.get(name.partition(".")[0].partition(" at ")[0], OTHER_COLOR)
