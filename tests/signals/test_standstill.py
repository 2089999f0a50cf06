import numpy as np
import pytest

from neuromill.signals.standstill import standstills

STAMPS = 5 + np.arange(2000) / 10  # 200 s


def moving(*still: slice) -> np.ndarray:
    values = np.cumsum(np.ones((len(STAMPS), 2)), axis=0)
    for one in still:
        values[one] = values[one.start]
    return values


@pytest.mark.parametrize(
    ("values", "spans"),
    [
        pytest.param(moving(), [], id="moving"),
        pytest.param(moving(slice(1200, 2000)), [(125.0, 204.9, 0.4)], id="to the end"),
        pytest.param(moving(slice(0, 700)), [(5.0, 74.9, 0.35)], id="from the start"),
        pytest.param(moving(slice(0, 2000)), [(5.0, 204.9, 1.0)], id="always"),
        pytest.param(moving(slice(0, 700), slice(900, 1600)), [(5.0, 74.9, 0.35), (95.0, 164.9, 0.35)], id="twice"),
        pytest.param(moving(slice(300, 901)), [(35.0, 95.0, 0.3005)], id="just long enough"),
        pytest.param(moving(slice(300, 900)), [], id="a rest"),
        pytest.param(np.full((2000, 2), np.nan), [], id="not observed"),
        pytest.param(np.stack([moving()[:, 0], np.zeros(2000)], axis=1), [], id="one dimension moves"),
        pytest.param(np.zeros((2000, 1)), [(5.0, 204.9, 1.0)], id="one dimension, always"),
    ],
)
def test_long_standstills_are_found(values: np.ndarray, spans: list[tuple[float, float, float]]) -> None:
    found = [(one.first_seconds, one.last_seconds, one.share) for one in standstills(STAMPS, values)]
    assert found == [pytest.approx(span) for span in spans]


def test_a_small_share_of_a_long_series_is_a_rest() -> None:
    stamps = np.arange(20_000) / 10
    values = np.arange(20_000.0)[:, None]
    values[:1999] = 0
    assert standstills(stamps, values) == ()
    values[:2000] = 0
    (one,) = standstills(stamps, values)
    assert str(one) == "no change from 0.0 to 199.9 s (10% of the samples): was it tracked there?"


def test_a_gap_is_no_standstill() -> None:
    assert standstills(np.array([0.0, 1.0, 100.0, 101.0]), np.array([[1.0], [2.0], [2.0], [3.0]])) == ()


@pytest.mark.parametrize("n_times", [0, 1])
def test_nothing_stands_still_in_no_time(n_times: int) -> None:
    assert standstills(np.zeros(n_times), np.zeros((n_times, 2))) == ()
