"""Counts and lines of metrics."""

import json
from pathlib import Path

import pytest
import torch

from neuromill.training.eegssm_metrics import CodesScores
from neuromill.training.metrics import MetricsFile, ScoreRow, Scores, Tally
from neuromill.training.ndt3_metrics import Ndt3Scores
from neuromill.training.objective import Outcome


def outcome(loss: float, correct: list[list[float]], positions: list[float]) -> Outcome:
    return Outcome(torch.tensor(loss), torch.tensor(correct).double(), torch.tensor(positions).double())


def test_scores_weigh_positions_not_batches() -> None:
    tally = Tally(["a", "b", "c"], 2, torch.device("cpu"))
    tally.add(outcome(1.0, [[3, 1], [0, 0], [0, 0]], [10, 0, 0]))
    tally.add(outcome(4.0, [[1, 1], [9, 27], [0, 0]], [2, 28, 0]))
    scores = tally.scores()
    assert scores.loss == pytest.approx((1.0 * 10 + 4.0 * 30) / 40)
    assert scores.per_level == pytest.approx((13 / 40, 29 / 40))
    assert scores.accuracy == pytest.approx(21 / 40)
    assert scores.per_dataset == {"a": pytest.approx((4 / 12, 2 / 12), abs=1e-6), "b": pytest.approx((9 / 28, 27 / 28), abs=1e-6)}  # fmt: skip # noqa: E501
    assert scores.positions == 40


def test_lines_come_back_and_can_be_rewound(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "deep" / "metrics.jsonl")
    assert file.rows() == []
    file.rewind(0)
    for step in (1, 2, 3):
        file.append({"step": step, "kind": "train"})
    with file.path.open("a") as torn:
        torn.write('{"step": 4, "ki')
    assert [row["step"] for row in file.rows()] == [1, 2, 3]
    file.rewind(2)
    assert [json.loads(line)["step"] for line in file.path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    "scores",
    [
        Scores(1.5, 0.25, (0.5, 0.0), {"a": (0.5, 0.0)}, 12),
        CodesScores(3.0, (1.0, 2.0), 0.25, (0.5, 0.0), (0.5, 0.125), {"a": (0.5, 0.0)}, 12),
        Ndt3Scores(1.5, 1.0, 0.5, None, {"x": 0.25, "y": None}, {"a": 0.25}, 12, 3),
    ],
    ids=lambda scores: type(scores).__name__,
)
def test_scores_survive_their_line(scores: ScoreRow) -> None:
    row = json.loads(json.dumps({"kind": "validation", "step": 3, **scores.row()}))
    assert type(scores).from_row(row) == scores
