"""Stage 3 of the miniature: the voice it learns from, the codec, the speech decoder, and an independent listener."""
