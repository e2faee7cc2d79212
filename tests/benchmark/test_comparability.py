import pytest

from batchramp.benchmark.comparability import Difference, differences


def metadata(identity=None, environment=None):
    return {"identity": identity or {}, "environment": environment or {}}


@pytest.mark.parametrize(
    ("base", "new", "told"),
    [
        ({"seed": 1}, {"seed": 2}, []),
        ({"set": {"lr": 0.5}}, {"set": {"lr": 0.50}}, []),
        (
            {"set": {"lr": 0.5, "b": 1}},
            {"set": {"lr": 0.5}},
            [Difference("question", "set.b", "1", "absent")],
        ),
        (
            {"parameters": {"lr": [0.1, 0.2]}},
            {"parameters": {"lr": [0.1, 0.3]}},
            [Difference("question", "parameters.lr", "[0.1, 0.2]", "[0.1, 0.3]")],
        ),
        (
            {"data": "0123456789abcdef" * 4},
            {"data": "f" * 64},
            [Difference("question", "data", "0123456789ab", "f" * 12)],
        ),
        (
            {"workload_sources": {"": "a" * 64}},
            {"workload_sources": {"": "b" * 64, "net": "c" * 64}},
            [
                Difference(
                    "code", "workload_sources.the file itself", "a" * 12, "b" * 12
                ),
                Difference("code", "workload_sources.net", "absent", "c" * 12),
            ],
        ),
        ({"threads": 1}, {"threads": 2}, [Difference("clock", "threads", "1", "2")]),
        (
            {"new": "x" * 99},
            {},
            [Difference("code", "new", "x" * 37 + "...", "absent")],
        ),
    ],
)
def test_differences_of_identities(base, new, told):
    found = differences(metadata(base), metadata(new))
    assert list(found.values()) == told


def test_differences_of_surroundings():
    base = {"jobs": "1", "recorded_at": "then", "load": "0.1", "python": "3.11"}
    new = {"jobs": "2", "recorded_at": "now", "load": "9.0", "python": "3.12"}
    found = differences(metadata(None, base), metadata(None, new))
    assert list(found.values()) == [
        Difference("clock", "jobs", "1", "2"),
        Difference("code", "python", "3.11", "3.12"),
    ]


def test_a_key_of_both_is_told_once():
    base = metadata({"threads": 1}, {"threads": "1"})
    new = metadata({"threads": 2}, {"threads": "2"})
    assert list(differences(base, new)) == ["threads"]
    # Whichever of the two differs.
    assert list(differences(base, metadata({"threads": 1}, {"threads": "2"}))) == [
        "threads"
    ]
