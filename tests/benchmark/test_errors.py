import json

import pytest

from batchramp.benchmark.errors import TrialError, listed, seeds_told, trial_errors

KEY = "KeyError: 'temperature' (w.py:23, in loss)"


def failed(error, **others):
    return {"metric": [0.1], "status": "failed", "error": error, **others}


def test_each_error_is_told_once_with_its_trials(run_of, trial):
    results = run_of(
        {
            "a": {
                "trials": [trial(2), failed(KEY, traceback="the first"), failed("x")]
            },
            "b": {"trials": [failed(KEY, traceback="another"), failed(KEY), trial(3)]},
        }
    )
    first, second = trial_errors(results)
    assert first == TrialError(
        error=KEY, traceback="the first", where=(("a", (1,)), ("b", (0, 1)))
    )
    assert (first.trials, second.trials) == (3, 1)
    assert first.place == "3 trials: a, seed 1; b, seeds 0 and 1"
    assert (second.error, second.traceback) == ("x", None)
    assert json.loads(json.dumps(first.to_dict())) == {
        "error": KEY,
        "traceback": "the first",
        "trials": 3,
        "where": [{"schedule": "a", "seeds": [1]}, {"schedule": "b", "seeds": [0, 1]}],
    }


def test_a_failure_without_a_reason_is_one_too(run_of, trial):
    (error,) = trial_errors(run_of({"a": {"trials": [failed(None), trial(2)]}}))
    assert error.error == "no reason was recorded"
    assert trial_errors(run_of({"a": {"trials": [trial(2)]}})) == ()
    diverged = trial(None, status="diverged")  # a result, and no error
    assert trial_errors(run_of({"a": {"trials": [diverged]}})) == ()


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ([3], "seed 3"),
        ([3, 4], "seeds 3 and 4"),
        ([0, 1, 2, 3, 7], "seeds 0 to 3 and 7"),
        ([0, 2, 4, 5, 6], "seeds 0, 2 and 4 to 6"),
    ],
)
def test_seeds_are_told_in_words(seeds, told):
    assert seeds_told(seeds) == told


def test_a_long_list_is_cut():
    assert listed("abc") == "a, b and c"
    assert listed("abcdefghijk", most=4) == "a, b, c and 8 more"
