import sys
from pathlib import Path

import pytest

from batchramp.names import load_from_file, suggest, user_file, user_path

OWN = """\
from dataclasses import dataclass

@dataclass
class Point:
    x: int = 1

value = 1
_hidden = 2
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


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


def test_what_a_file_defines_is_found(own, monkeypatch):
    assert load_from_file("own.py:value", own) == 1
    assert load_from_file(f"{own}/own.py:value") == 1
    monkeypatch.chdir(own)
    assert load_from_file("own.py:value") == 1
    point = load_from_file("own.py:Point")
    assert point().x == 1
    assert load_from_file("own.py:Point") is point


def test_a_file_is_relative_to_the_folder_named(own, monkeypatch):
    group, found = "batchramp.workloads", (own / "own.py").resolve()
    assert user_file("own.py:value", group, own) == found
    assert user_file("sub/../own.py:value", group, own) == found
    monkeypatch.chdir(own)
    assert user_file("own.py:value", group) == found
    assert user_file("digits", group) is None


def test_an_edited_file_is_read_anew(own):
    path = own / "own.py"
    assert load_from_file("own.py:value", own) == 1
    # Of the same length, and in the same second.
    path.write_text(OWN.replace("value = 1", "value = 3"))
    assert load_from_file("own.py:value", own) == 3
    path.write_text(OWN)
    assert load_from_file("own.py:value", own) == 1


def test_nothing_is_left_beside_a_users_file(own):
    load_from_file("own.py:value", own)
    assert [path.name for path in own.iterdir()] == ["own.py"]


def test_files_of_one_name_are_not_mistaken_for_each_other(own):
    (own / "sub").mkdir()
    (own / "sub" / "own.py").write_text("value = 7\n")
    assert load_from_file("own.py:value", own) == 1
    assert load_from_file("sub/own.py:value", own) == 7
    assert load_from_file("own.py:value", own) == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.py:value", None, r"none\.py:value: there is no file .*none\.py"),
        (".:value", None, "must be a Python file"),
        ("own.txt:value", "value = 1", "must be a Python file"),
        ("own.py:valeu", OWN, "unknown name 'valeu': did you mean value"),
        ("own.py:_hiden", OWN, "unknown name '_hiden': there are Point"),
        ("own.py:", OWN, "unknown name ''"),
        ("own.py:x", "x = (", r"own\.py cannot be run: SyntaxError"),
        ("own.py:x", "\0", r"own\.py cannot be run: "),
        ("own.py:x", "1 / 0", "cannot be run: ZeroDivisionError: division by zero"),
        ("own.py:x", "import nosuch", "cannot be run: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name.partition(":")[0]).write_text(content)
    with pytest.raises(ValueError, match=told):
        load_from_file(name, tmp_path)


def test_a_file_that_cannot_be_run_leaves_no_module(tmp_path):
    (tmp_path / "half.py").write_text("x = 1\n1 / 0\n")
    before = set(sys.modules)
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_from_file("half.py:x", tmp_path)
    assert not any(name.endswith("half") for name in set(sys.modules) - before)


def test_a_home_directory_is_filled_in_once(monkeypatch):
    monkeypatch.setenv("HOME", "/home/~")
    assert user_path("~/x") == Path("/home/~/x")
    assert user_path("a/~/[x]*") == Path("a/~/[x]*")
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
