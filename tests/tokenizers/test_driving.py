"""What every fit shares, on a network of one layer: steps, checkpoints, refusals, the curve."""

from dataclasses import dataclass

import pytest
import torch

from neuromill.records import ConfigError
from neuromill.tokenizers.config import FitConfig, RevivalConfig, TokenizerConfig
from neuromill.tokenizers.driving import curve_summary, drive, quality_of, seeded
from neuromill.tokenizers.files import load_checkpoint
from support.fits import KilledError, die_at

CONFIG = FitConfig(steps=7, checkpoint_every=3, lr=0.1, revival=RevivalConfig(every=2))


@dataclass(frozen=True)
class Record:
    step: int
    total: float
    sum_before: float


@dataclass(frozen=True)
class Scalars:
    total: torch.Tensor


class Line:
    """Fits y = w x to y = 3 x; keeps a sum of its own over all batches, which a record tells."""

    code_version = "1"
    parts: tuple[str, ...] = ("total",)
    weights = "network"

    def __init__(self, config=CONFIG):
        self.tokenizer, self.config = TokenizerConfig(), config
        self.network = seeded(lambda: torch.nn.Linear(1, 1, bias=False), config.seed)
        self.sums, self.revived = [0.0], []

    def optimizer(self):
        return torch.optim.Adam(self.network.parameters())

    def learning_rate(self, step):
        return self.config.lr / (1 + step)

    def losses(self, batch, step, learning):
        if learning.revive:
            self.revived.append(step)
        self.sums.append(self.sums[-1] + float(batch.sum()))
        noise = torch.rand(len(batch), 1, generator=learning.generator)
        return Scalars((self.network(batch) - 3 * batch - 0.1 * noise).square().mean())

    def record(self, step, values):
        return Record(step, *values, sum_before=self.sums[step])

    def state(self):
        return {"sums": torch.tensor(self.sums, dtype=torch.float64)}

    def restore(self, state):
        self.sums = state["sums"].tolist()


def batches(step):
    return torch.rand(4, 1, generator=torch.Generator().manual_seed(step))


def run(kind, *, batches=batches, checkpoint=None, data_identity="", progress=None):
    return drive(kind, batches, checkpoint=checkpoint, data_identity=data_identity, device="cpu", progress=progress)


@pytest.fixture(scope="module")
def undisturbed():
    kind = Line()
    return run(kind), kind.network.weight.item()


@pytest.mark.parametrize(("died_at", "goes_on_at"), [(0, 0), (1, 0), (2, 3), (3, 3), (5, 6), (6, 7)])
def test_a_fit_goes_on_from_its_last_checkpoint(undisturbed, tmp_path, died_at, goes_on_at):
    file = tmp_path / "below" / "fit.pt"
    with pytest.raises(KilledError):
        run(Line(), checkpoint=file, progress=die_at(died_at))
    kind, steps = Line(), []
    history = run(kind, checkpoint=file, progress=lambda record: steps.append(record.step))
    # The checkpoint is written before progress is told: the one of step 2 is there when it kills.
    assert steps == list(range(goes_on_at, 7))
    assert (history, kind.network.weight.item()) == undisturbed


def test_what_is_done_is_not_done_again(undisturbed, tmp_path):
    run(Line(), checkpoint=tmp_path / "fit.pt")
    assert run(Line(), batches=None, checkpoint=tmp_path / "fit.pt") == undisturbed[0]


def test_dead_codes_are_replaced_every_so_many_steps():
    kind = Line()
    run(kind)
    assert kind.revived == [1, 3, 5]


@pytest.mark.parametrize(
    "change",
    [{"data_identity": "other"}, {"kind": {"seed": 1}}, {"kind": {"steps": 8}}, {"code_version": "2"}],
    ids=str,
)
def test_the_checkpoint_of_another_fit_is_refused_and_kept(tmp_path, change):
    file = tmp_path / "fit.pt"
    run(Line(), checkpoint=file)
    before = file.read_bytes()
    kind = Line(CONFIG.model_copy(update=change.get("kind", {})))
    kind.code_version = change.get("code_version", "1")
    with pytest.raises(ConfigError, match="another fit"):
        run(kind, checkpoint=file, data_identity=change.get("data_identity", ""))
    assert file.read_bytes() == before


def test_a_checkpoint_holds_tensors_and_plain_values(tmp_path):
    run(Line(), checkpoint=tmp_path / "fit.pt")
    state = load_checkpoint(tmp_path / "fit.pt")
    assert state.keys() == {"identity", "network", "optimizer", "generator", "curve", "sums"}
    assert state["curve"].shape == (7, 1)


def test_gradients_are_clipped_where_asked():
    def first_gradient(limit):
        kind = Line(CONFIG.model_copy(update={"steps": 1, "max_grad_norm": limit}))
        run(kind)
        return abs(kind.network.weight.grad.item())

    assert first_gradient(None) > 0.01
    assert first_gradient(0.01) == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_a_number_stops_before_it_reaches_the_weights():
    kind = Line()
    with pytest.raises(ConfigError, match="nan at step 2"):
        run(kind, batches=lambda step: batches(step) * (torch.nan if step == 2 else 1))
    assert kind.network.weight.isfinite().all()


def test_the_caller_keeps_its_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert Line().network.weight == Line().network.weight
    assert torch.equal(torch.rand(3), expected)


def test_the_summary_takes_means_of_a_tenth_of_the_curve():
    curve = [Record(step, float(total), 0.0) for step, total in enumerate([4, 2, *[9] * 16, 1, 0])]
    assert curve_summary(curve, None) == {"steps": 20, "first_loss": 3.0, "last_loss": 0.5, "quality": None}
    assert curve_summary(curve[:3], None)["first_loss"] == 4.0


def test_without_windows_there_is_no_quality():
    assert quality_of(None, iter(())) is None
