"""``python -m sottovoce.demos.miniature.speech_out [--work DIR] [--sentences N] [--sounds DIR]``: listen to stage 3."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from sottovoce.demos.miniature.settings import Workspace, default_workspace
from sottovoce.demos.miniature.speech_out.measuring import measure_speech_out
from sottovoce.runtime.errors import SottovoceError


def main() -> int:
    """Print what the listener misheard, and a table of word error rates; 1 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m sottovoce.demos.miniature.speech_out", description=main.__doc__)
    parser.add_argument("--work", type=Path, help="the workspace [default: $SOTTOVOCE_MINIATURE]")
    parser.add_argument("--sentences", type=int, default=40, help="held-out replies to listen to [default: 40]")
    parser.add_argument("--sounds", type=Path, help="write what was heard here, as WAV files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    workspace = Workspace(options.work) if options.work else default_workspace()
    try:
        measures = measure_speech_out(workspace, max(1, options.sentences), options.sounds)
    except SottovoceError as error:
        print(error, file=sys.stderr)
        return 1
    worst = measures.decoder or measures.codec
    for item in worst.utterances:
        if item.errors:
            print(f"  {item.errors} of {item.words}: {item.meant!r} heard as {item.heard!r}")
    for name, rate, difference in measures.rows():
        print(f"{name:16s} word error rate {100 * rate:5.1f} %, minus the voice's {100 * difference:+5.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
