import json
import os
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from neuromill.signals.blas import product

IN_FOUR_PYTHON_THREADS = """
import hashlib, json
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from threadpoolctl import threadpool_info
from neuromill.signals.blas import product
rng = np.random.default_rng(0)
left, right = rng.standard_normal((64, 3198)), rng.standard_normal((3198, 54))
threads = lambda: [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
made = lambda _: hashlib.sha256(product(left, right).tobytes()).hexdigest()
before = threads()
with ThreadPoolExecutor(4) as pool:
    digests = sorted(set(pool.map(made, range(64))))
print(json.dumps({"before": before, "after": threads(), "digests": digests}))
"""


def threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("shape", [(306, 967, 54), (3, 5800, 200), (306, 3198, 54)])
def test_same_bytes_for_any_number_of_threads(shape):
    """Shapes of 300.3, 1017.25 and 1000 Hz recordings; with OpenBLAS each differs without the limit."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal(shape[:2]), rng.standard_normal(shape[1:])
    made = []
    for limit in (1, 2, 4):
        with threadpool_limits(limits=limit):
            made.append(product(left, right).tobytes())
            assert threads() == {limit}
    assert made[0] == made[1] == made[2]


def test_python_threads_do_not_disturb_each_other():
    """In a process of its own, whose BLAS starts with two threads and with one."""
    found = []
    for count in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
        output = subprocess.run(
            [sys.executable, "-c", IN_FOUR_PYTHON_THREADS], env=environment, check=True, capture_output=True
        ).stdout
        found.append(json.loads(output))
        assert found[-1]["before"] == found[-1]["after"]
    assert len(found[0]["digests"]) == 1
    assert found[0]["digests"] == found[1]["digests"]
