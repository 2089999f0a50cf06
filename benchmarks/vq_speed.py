"""Nearest code of CodeBrain-sized batches: our chunked search against vector-quantize-pytorch.

Usage: python benchmarks/vq_speed.py [--vectors 16384] [--codes 4096] [--dim 32] [--repeats 5] [--threads 1]
Both must give equal codes before anything is timed. Each measurement has a process of its own, so that peak memory
is that of one way only; the two ways take turns. Ratios are medians over the pairs.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch


def oracle(codes: torch.Tensor) -> torch.nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    book = VectorQuantize(
        dim=codes.shape[1], codebook_size=len(codes), use_cosine_sim=True, decay=0.99, rotation_trick=False
    )
    book._codebook.embed.copy_(codes)  # noqa: SLF001
    book._codebook.embed_avg.copy_(codes)  # noqa: SLF001
    return book


def ours(codes: torch.Tensor) -> torch.nn.Module:
    from neuromill.tokenizers.norm_ema import NormEmaCodebook

    book = NormEmaCodebook(*codes.shape)
    book.embed.copy_(codes)
    book.inited.fill_(1)
    return book


def run(way: str, mode: str, vectors: torch.Tensor, book: torch.nn.Module) -> torch.Tensor:
    """Codes of one call: look-up only, or a training step with the moves of the codebook."""
    if way == "library":
        return book.train(mode == "training")(vectors[None])[1][0]
    from neuromill.tokenizers.config import RevivalConfig
    from neuromill.tokenizers.quantizer import Learning

    learning = Learning(torch.Generator().manual_seed(0), revival=RevivalConfig(enabled=False))
    return book(vectors, learning if mode == "training" else None).codes


def inputs(arguments: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.nn.functional.normalize(torch.randn(arguments.codes, arguments.dim, generator=generator), dim=-1)
    return torch.randn(arguments.vectors, arguments.dim, generator=generator), codes


def measure(arguments: argparse.Namespace) -> None:
    """Measure one way in this process; prints seconds of wall and processor, and bytes of memory beyond the start."""
    torch.set_num_threads(arguments.threads)
    vectors, codes = inputs(arguments)
    book = (oracle if arguments.way == "library" else ours)(codes)
    run(arguments.way, arguments.mode, vectors[:64], book)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here (Linux)
    before = peak_bytes()
    with torch.inference_mode():
        start, cpu = time.perf_counter(), time.process_time()
        run(arguments.way, arguments.mode, vectors, book)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "bytes": peak_bytes() - before}))


def peak_bytes() -> int:
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measured(arguments: argparse.Namespace, way: str, mode: str) -> dict[str, float]:
    sizes = ["vectors", "codes", "dim", "threads"]
    options = [f"--{name}={getattr(arguments, name)}" for name in sizes]
    command = [sys.executable, __file__, f"--way={way}", f"--mode={mode}", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(arguments: argparse.Namespace) -> None:
    vectors, codes = inputs(arguments)
    with torch.inference_mode():
        same = torch.equal(run("ours", "eval", vectors, ours(codes)), run("library", "eval", vectors, oracle(codes)))
    if not same:
        raise SystemExit("codes differ: nothing to time")
    print(f"{arguments.vectors} vectors, {arguments.codes} codes of {arguments.dim}, {arguments.threads} threads")
    print("| mode | way | s | CPU s | extra MB |\n|---|---|---:|---:|---:|")
    for mode in ("eval", "training"):
        pairs = [[measured(arguments, way, mode) for way in ("library", "ours")] for _ in range(arguments.repeats)]
        for i, way in enumerate(("library", "ours")):
            middle = {key: statistics.median(pair[i][key] for pair in pairs) for key in ("seconds", "cpu", "bytes")}
            print(f"| {mode} | {way} | {middle['seconds']:.2f} | {middle['cpu']:.2f} | {middle['bytes'] / 1e6:.0f} |")
        ratios = {
            key: statistics.median(library[key] / max(own[key], 1e-9) for library, own in pairs)
            for key in ("seconds", "cpu", "bytes")
        }
        print(f"{mode}: {ratios['seconds']:.1f} times faster, {ratios['cpu']:.1f} in CPU time, "
              f"{ratios['bytes']:.0f} times less memory")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=16_384)
    parser.add_argument("--codes", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=("library", "ours"))
    parser.add_argument("--mode", choices=("eval", "training"), default="eval")
    arguments = parser.parse_args()
    measure(arguments) if arguments.way else compare(arguments)


if __name__ == "__main__":
    main()
