"""Rows per second of BioCodec encoding, by rows per forward pass and by threads.

Usage: python benchmarks/tokenize_speed.py [--seconds 150] [--rows 16] [--repeats 3]
Random weights: speed does not depend on them.
"""

import argparse
import statistics
import time

import torch

from neuromill.tokenizers.biocodec import BioCodec
from neuromill.tokenizers.config import TokenizerConfig
from neuromill.tokenizers.encoding import encode_rows
from neuromill.tokenizers.tokenizer import RvqTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--rows", type=int, default=32, help="rows encoded per measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    arguments = parser.parse_args()

    tokenizer = RvqTokenizer(TokenizerConfig(), BioCodec())
    signal = torch.randn(arguments.rows, round(arguments.seconds * tokenizer.sfreq))
    print("| threads | rows per pass | rows/s (median) | spread | CPU ms per row |\n|---|---|---|---|---|")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for batch in arguments.batches:
            encode_rows(tokenizer, signal[:batch], batch)
            rates, cpu = [], time.process_time()
            for _ in range(arguments.repeats):
                start = time.perf_counter()
                encode_rows(tokenizer, signal, batch)
                rates.append(len(signal) / (time.perf_counter() - start))
            per_row = 1e3 * (time.process_time() - cpu) / (arguments.repeats * len(signal))
            spread = f"{min(rates):.1f}-{max(rates):.1f}"
            print(f"| {threads} | {batch} | {statistics.median(rates):.1f} | {spread} | {per_row:.0f} |", flush=True)


if __name__ == "__main__":
    main()
