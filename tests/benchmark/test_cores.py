import os

import joblib
import pytest

from batchramp.benchmark.cores import default_threads


def test_jobs_share_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = joblib.cpu_count()
    assert cores <= len(os.sched_getaffinity(0))
    assert default_threads(1) == cores
    assert default_threads(cores) == 1
    assert default_threads(100 * cores) == 1
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert default_threads(1) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("named", "jobs", "threads"),
    [("4", 1, 4), ("4", 2, 2), ("4,2", 1, 4), ("100", 1, 8), (" ", 1, 8)],
)
def test_a_quota_and_openmp_s_own_variable_count(monkeypatch, named, jobs, threads):
    # The quota is the library's to read; a container cannot be made in a test.
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    assert default_threads(jobs) == threads


@pytest.mark.parametrize("named", ["many", "0", "-1", "1.5"])
def test_a_variable_that_is_no_number_is_named(monkeypatch, named):
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS must be .*got '{named}'"):
        default_threads(1)
