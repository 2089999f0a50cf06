from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from neuromill.signals.blas import ONE_THREAD
from support.signals import MEG_STEPS, process, synthetic_meg


def threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_same_bytes_for_any_number_of_threads():
    x = synthetic_meg(306, 6, 300.307)
    made = []
    for limit in (1, 2, 4):
        with threadpool_limits(limits=limit):
            made.append(process(MEG_STEPS, x, 300.307)[1].tobytes())
    assert made[0] == made[1] == made[2]


def test_the_limit_is_given_back_once_the_last_is_out():
    with threadpool_limits(limits=2, user_api="blas"):
        with ONE_THREAD:
            with ONE_THREAD:
                assert threads() == {1}
            assert threads() == {1}
        assert threads() == {2}


def test_python_threads_do_not_disturb_each_other():
    x = synthetic_meg(157, 4, 300.307)
    with threadpool_limits(limits=2), ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: process(MEG_STEPS, x, 300.307)[1], range(8)))
    for y in made[1:]:
        np.testing.assert_array_equal(y, made[0])
