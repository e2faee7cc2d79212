"""How many threads a trial gets where its suite does not say."""

from __future__ import annotations

import os


def default_threads(jobs: int) -> int:
    """Return the threads of each of `jobs` trials at a time, at least 1.

    The least of the cores that the process may use (its affinity), the quota of its
    container (the control group's, rounded up) and `OMP_NUM_THREADS` where that is set,
    over the number of jobs.

    Raises:
        ValueError: `OMP_NUM_THREADS` is no whole number of at least 1.
    """
    import joblib  # a quarter of a second, for suites that do not say

    available: int = joblib.cpu_count()
    named = os.environ.get("OMP_NUM_THREADS", "").strip()
    if named:
        # A list is of nested regions; the first number is the outermost one's.
        first = named.partition(",")[0].strip()
        if not first.isdecimal() or int(first) < 1:
            raise ValueError(
                f"OMP_NUM_THREADS must be a whole number of at least 1, got {named!r}"
            )
        available = min(available, int(first))
    return max(1, available // jobs)
