"""What tests of training runs share: a stand-in for a kill, lines of metrics, two ranks in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from neuromill.training.loop import Progress

TESTS = Path(__file__).parents[1]
TWO_RANKS_SECONDS = 900  # generous: other work may have the cores
# A rank aborted once under load: the other may end, and close its connections, while this one still uses them.
TOGETHER = "\nimport torch.distributed as ranks\nranks.barrier()\nranks.destroy_process_group()\n"


class InterruptedRunError(Exception):
    """Stands for a kill."""


def interrupt_at(step: int | None) -> Callable[[Progress], None]:
    """Raise ``InterruptedRunError`` after this step; never, where it is None."""

    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise InterruptedRunError

    return on_step


def lines(folder: Path, kind: str = "") -> list[dict[str, object]]:
    """Lines of ``metrics.jsonl`` (of one kind), without the seconds they took."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows if kind in ("", row["kind"])]


def weights(folder: Path) -> bytes:
    """The file of the weights of the finished model."""
    return (folder / "model" / "model.safetensors").read_bytes()


def on_two_ranks(script: Path, statements: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Write statements to ``script`` and run them on two ranks, which end together; test modules can be imported."""
    paths = [str(TESTS), str(TESTS / "training")]
    script.write_text(f"import sys\nfrom pathlib import Path\n\nsys.path[:0] = {paths!r}\n{statements}{TOGETHER}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(script), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=TWO_RANKS_SECONDS,
        check=False,
        text=True,
    )
