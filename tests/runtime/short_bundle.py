"""A bundle whose speech stops early: random weights never say that they are done."""

from __future__ import annotations

from dataclasses import replace

from sottovoce.runtime.bundle import Bundle

MAX_CODES = 35


def shortened(bundle: Bundle, **generation) -> Bundle:
    """The bundle with few codes a piece and other generation settings."""
    manifest = bundle.manifest
    speech = replace(manifest.speech, max_codes=MAX_CODES)
    settings = replace(manifest.generation, **generation)
    return Bundle(bundle.path, replace(manifest, speech=speech, generation=settings))
