"""An error of a user's own code is told in one line, with the user's own line."""

import json
import sysconfig

import pytest
import torch

import batchramp
from batchramp.schedules import plan
from batchramp.user_code.errors import errors_named, is_users_own, told


def run(source, path="w.py", call=None):
    """Execute a user's file, and perhaps a function of it; return what it raises."""
    scope = {}
    try:
        exec(compile(source, path, "exec"), scope)
        if call:
            scope[call]()
    except BaseException as error:
        # As it is caught: without the frame of this test file, which is a user's too.
        return error.with_traceback(error.__traceback__.tb_next)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "path",
    [
        json.__file__,
        torch.__file__,
        batchramp.__file__,
        f"{sysconfig.get_path('purelib')}/somebodys/module.py",
        "<string>",
        "numpy/random/_mt19937.pyx",
        "<frozen importlib._bootstrap>",
        "",
    ],
)
def test_what_is_installed_is_no_users_own(path):
    assert not is_users_own(path)


def test_other_files_are_a_users_own(tmp_path, monkeypatch):
    assert is_users_own(tmp_path / "w.py")
    assert is_users_own(__file__)
    monkeypatch.chdir(tmp_path)
    assert is_users_own("w.py")


def test_a_link_into_the_installed_packages_is_none(tmp_path):
    link = tmp_path / "linked.py"
    link.symlink_to(torch.__file__)
    assert not is_users_own(link)


def test_type_message_and_the_users_innermost_line():
    source = "import json\n\ndef loss():\n    inner()\n\ndef inner():\n    {}['kept']\n"
    assert told(run(source, call="loss")) == "KeyError: 'kept' (w.py:7, in inner)"


def test_frames_of_libraries_are_passed_over():
    source = "import json\n\ndef load():\n    return json.loads('{')\n"
    line = told(run(source, "/home/me/w.py", call="load"))
    assert line.startswith("JSONDecodeError: Expecting property name")
    assert line.endswith("(w.py:4, in load)")


def test_an_error_without_words_is_its_type():
    assert told(run("assert 1 == 2")) == "AssertionError (w.py:1)"


def test_a_message_of_many_lines_is_one():
    source = "raise RuntimeError('one\\n\\n   two\\n')"
    assert told(run(source)) == "RuntimeError: one two (w.py:1)"


def test_a_message_that_cannot_be_read():
    source = "class E(Exception):\n    def __str__(self):\n        {}['x']\nraise E\n"
    assert told(run(source)) == "E: <its message cannot be read> (w.py:4)"


def test_the_line_of_a_syntax_error_is_its_own():
    error = run("x = 1\ndef broken(:\n    pass\n")
    assert told(error) == "SyntaxError: invalid syntax (w.py:2)"


def test_no_frame_of_a_users_no_bracket():
    assert told(ValueError("as it is")) == "ValueError: as it is"


def test_errors_of_batchramps_own_are_their_message_alone():
    source = "from batchramp import plan\n\ndef f():\n    plan('no-such')\n"
    error = run(source, call="f")
    assert str(error) in told(error)
    assert told(error) == f"{error} (w.py:4, in f)"
    alone = run(source, "<string>", call="f")
    assert told(alone) == str(alone)


def named(place, act):
    with pytest.raises(ValueError, match="w: ") as caught, errors_named(place):
        act()
    return str(caught.value)


def key_error():
    return {}["x"]


def test_errors_named_tells_the_place():
    line = key_error.__code__.co_firstlineno + 1
    told_line = f"w: KeyError: 'x' (test_errors.py:{line}, in key_error)"
    assert named("w", key_error) == told_line


def test_errors_named_says_place_and_line_once():
    def within():
        with errors_named("w"):
            plan("no-such")

    message = named("w", within)
    assert message.startswith("w: unknown schedule")
    assert message.count("(test_errors.py") == message.count("w: ") == 1


def test_an_exit_is_an_error_and_an_interrupt_passes():
    def leave():
        raise SystemExit("no data")

    told_line = "w: it calls exit: SystemExit: no data (test_errors.py"
    assert named("w", leave).startswith(told_line)
    with pytest.raises(KeyboardInterrupt), errors_named("w"):
        raise KeyboardInterrupt
