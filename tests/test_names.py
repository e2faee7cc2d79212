from pathlib import Path

from batchramp.names import suggest, user_path


def test_the_nearest_names_come_first():
    known = ["smith-decay", "smith-increase", "umeda-warmup"]
    told = suggest("schedule", "smith-deacy", known)
    assert told.startswith("unknown schedule 'smith-deacy': did you mean smith-decay")
    assert "umeda" not in told


def test_where_nothing_is_near_all_are_told():
    assert suggest("boundary", "xyz", ["wrap", "keep", "drop"]) == (
        "unknown boundary 'xyz': there are drop, keep, wrap"
    )
    assert suggest("suite", "xyz", []) == "unknown suite 'xyz': there are none"


def test_what_is_very_long_or_many_is_cut():
    told = suggest("label", "x" * 10**6, [f"entry {i}" for i in range(10**5)])
    assert told.startswith("unknown label 'xxx")
    assert told.endswith(" and 99950 more")
    assert len(told) < 1000


def test_a_name_may_be_empty_or_odd():
    for name in ("", "\n", "[/b]", "ü" * 90):
        assert repr(name) in suggest("schedule", name, ["constant"])


def test_a_home_directory_is_filled_in_once(monkeypatch):
    monkeypatch.setenv("HOME", "/home/~")
    assert user_path("~/x") == Path("/home/~/x")
    assert user_path("a/~/[x]*") == Path("a/~/[x]*")
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
