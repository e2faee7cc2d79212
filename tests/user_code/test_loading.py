import pickle
import subprocess
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from batchramp.user_code import loading
from batchramp.user_code.loading import UserCode

GROUP = "batchramp.workloads"


@pytest.fixture
def own(tmp_path):
    """Writes files by name, and returns the folder."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def value(folder, name="w.py:value"):
    code = UserCode(folder)
    with code.importable():
        found = code.load(name)
    return found, code.sources(name, GROUP)


def test_a_file_imports_its_neighbours_and_each_counts(own):
    folder = own(
        w="from net import value", net="from deep import value", deep="value = 3"
    )
    found, sources = value(folder)
    assert found == 3
    assert sorted(sources) == ["", "deep", "net"]
    assert all(len(digest) == 64 for digest in sources.values())


@pytest.mark.parametrize(
    "statement",
    [
        "import net; value = net.value",
        "import net as other; value = other.value",
        "from net import *",
        "def late():\n    import net\n    return net.value\nvalue = late()",
        "if True:\n    from net import value",
        "try:\n    import absent_module\nexcept ImportError:\n    from net import value",
        "from pack.inner import value",
        "import pack.inner; value = pack.inner.value",
        "from pack import inner; value = inner.value",
        "from pack.relative import value",
        "from spread.inner import value",
        "from pack.spread.inner import value",
    ],
)
def test_every_form_of_an_import_is_followed(own, statement):
    files = {
        "net": "value = 7",
        "pack____init__": "",
        "pack__inner": "from net import value",
        "pack__relative": "from .inner import value\nfrom . import inner",
        "spread__inner": "from net import value",  # a folder without __init__.py
        "pack__spread/inner": "from net import value",
    }
    folder = own(w=statement, **files)
    found, before = value(folder)
    assert found == 7
    own(net="value = 8")
    found, after = value(folder)
    assert found == 8
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["net"]


def test_an_edit_of_the_same_second_and_size_is_run_and_hashed(own):
    folder = own(w="from net import value", net="value = 1")
    first, before = value(folder)
    own(net="value = 2")
    second, after = value(folder)
    assert (first, second) == (1, 2)
    assert before["net"] != after["net"]
    assert before[""] == after[""]


def test_what_is_hashed_is_what_runs_even_if_it_is_edited_between(own):
    folder = own(
        w="def value():\n    from net import number\n    return number",
        net="number = 1",
    )
    code = UserCode(folder)
    with code.importable():
        late = code.load("w.py:value")
        sources = code.sources("w.py:value", GROUP)
        own(net="number = 2")
        assert late() == 1
    assert sources == UserCode(folder, read=code.read).sources("w.py:value", GROUP)
    assert sources != UserCode(folder).sources("w.py:value", GROUP)


def test_another_process_runs_what_this_one_has_read(own):
    folder = own(w="from net import value", net="value = 1")
    code = UserCode(folder)
    sources = code.sources("w.py:value", GROUP)
    own(w="value = 5", net="value = 2")
    there = UserCode(folder, read=pickle.loads(pickle.dumps(code.read)))
    with there.importable():
        assert there.load("w.py:value") == 1
    assert there.sources("w.py:value", GROUP) == sources


def test_the_installed_and_the_standard_library_do_not_count(own):
    folder = own(w="import json, numpy, batchramp, click.core\nvalue = 1")
    assert sorted(value(folder)[1]) == [""]


def test_afterwards_the_process_is_as_it_was(own):
    folder = own(w="import net; value = net", net="x = 1")
    path, finders, modules = list(sys.path), list(sys.meta_path), set(sys.modules)
    found, _ = value(folder)
    assert found.x == 1
    assert (sys.path, sys.meta_path) == (path, finders)
    assert {"w", "net"}.isdisjoint(set(sys.modules) - modules)


def test_a_module_that_the_process_has_imported_is_put_back(own, monkeypatch):
    folder = own(w="import net_of_mine; value = net_of_mine.x", net_of_mine="x = 1")
    monkeypatch.syspath_prepend(str(folder))
    before = import_module("net_of_mine")
    own(net_of_mine="x = 2")
    found, _ = value(folder)
    assert found == 2
    assert sys.modules["net_of_mine"] is before
    assert before.x == 1
    del sys.modules["net_of_mine"]


def test_folders_with_files_of_one_name_do_not_meet(own, tmp_path):
    own(one__w="from net import value", one__net="value = 1")
    own(two__w="from net import value", two__net="value = 2")
    assert value(tmp_path / "one")[0] == 1
    assert value(tmp_path / "two")[0] == 2
    code = UserCode(tmp_path)
    with code.importable():
        assert code.load("one/w.py:value") == 1
        with pytest.raises(ValueError, match=r"one file by import net, got .* rename"):
            code.load("two/w.py:value")


def test_two_files_of_one_name_are_two_files(own, tmp_path):
    own(one__w="value = 1", two__w="value = 2")
    code = UserCode(tmp_path)
    with code.importable():
        assert code.load("one/w.py:value") == 1
        assert code.load("two/w.py:value") == 2
        assert code.load("one/w.py:value") == 1


def test_a_file_is_run_once_for_all_its_names(own):
    folder = own(w="value = object()\nother = value\nimport m", m="import w")
    code = UserCode(folder)
    with code.importable():
        assert code.load("w.py:value") is code.load("w.py:other")


def test_what_no_import_statement_shows_must_be_named(own):
    folder = own(
        w="import importlib\nvalue = importlib.import_module('net').value",
        net="value = 4",
    )
    with pytest.raises(ValueError, match=r'net.py is imported.*sources = \["net.py"\]'):
        value(folder)
    code = UserCode(folder, ["net.py"])
    with code.importable():
        assert code.load("w.py:value") == 4
    before = code.extra_sources()
    own(net="value = 5")
    assert UserCode(folder, ["net.py"]).extra_sources() != before
    with pytest.raises(ValueError, match=r"sources: there is no file data.json"):
        UserCode(folder, ["data.json"])


@pytest.mark.parametrize("name", ["wave", "click"])
def test_a_neighbour_may_not_hide_what_others_import(own, name):
    folder = own(w=f"import {name}\nvalue = 1", **{name: "x = 1"})
    with pytest.raises(
        ValueError, match=rf"{name}.py must not have the name .* rename"
    ):
        value(folder)


def test_a_neighbour_that_nobody_imports_hides_nothing(own):
    folder = own(w="import wave\nimport calendar\nvalue = wave", random="boom")
    assert value(folder)[0].__file__ == import_module("wave").__file__


@pytest.mark.parametrize("name", ["random", "click", "my-file", "a.b", "sklearn"])
def test_a_file_itself_may_have_any_name(own, name, tmp_path):
    (tmp_path / f"{name}.py").write_text(
        "import random, click\nvalue = random.random()"
    )
    assert 0 <= value(tmp_path, f"{name}.py:value")[0] < 1
    assert import_module("random").__file__ != str(tmp_path / "random.py")


def test_spawned_processes_of_user_code_find_it(own):
    folder = own(
        w=(
            "import multiprocessing\n"
            "from net import double\n"
            "class Item:\n"
            "    def __init__(self, x): self.x = x\n"
            "def half(item): return item.x // 2\n"
            "def value():\n"
            "    context = multiprocessing.get_context('spawn')\n"
            "    with context.Pool(1) as pool:\n"
            "        return pool.map(half, [Item(4)]) + pool.map(double, [4])\n"
        ),
        net="def double(x): return 2 * x",
    )
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from batchramp.user_code.loading import UserCode\n"
        "if __name__ == '__main__':\n"
        "    code = UserCode(Path(sys.argv[1]))\n"
        "    with code.importable():\n"
        "        print(code.load('w.py:value')())\n"
    )
    (folder / "main.py").write_text(script)
    done = subprocess.run(
        [sys.executable, folder / "main.py", folder],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
    )
    assert done.stdout == "[2, 8]\n", done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise KeyError('ink')", r"w.py cannot be run: KeyError: 'ink' \(w.py:1\)"),
        ("import net", r"cannot be run: ZeroDivisionError: .*\(net.py:2\)"),
        ("x = (", r"w.py cannot be run: SyntaxError: .*\(w.py:1\)"),
        ("exit(0)", "w.py calls exit when it is run"),
        (
            "import argparse\nargparse.ArgumentParser().parse_args(['x'])",
            "w.py calls exit when it is run",
        ),
        ("values = 1", "unknown name 'value': did you mean values"),
    ],
)
def test_what_is_wrong_is_told_with_the_users_line(own, text, told):
    folder = own(w=text, net="\n1 / 0")
    with pytest.raises(ValueError, match=told):
        value(folder)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent.py:value", "there is no file"),
        ("w.txt:value", "must be a Python file"),
        ("w.py:", "the name after ':'"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(own, name, told):
    with pytest.raises(ValueError, match=told):
        value(own(w=""), name)


def test_a_built_in_name_has_no_source():
    assert UserCode().sources("digits", GROUP) == {}


OWN = """\
from dataclasses import dataclass

@dataclass
class Point:
    x: int = 1

value = 1
_hidden = 2
"""


def test_nothing_is_left_beside_a_users_file(own):
    folder = own(w=OWN + "import net\n", net="")
    assert value(folder, "w.py:Point")[0]().x == 1
    assert sorted(path.name for path in folder.iterdir()) == ["net.py", "w.py"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.py:value", None, r"none\.py:value: there is no file .*none\.py"),
        (".:value", None, "must be a Python file"),
        ("own.txt:value", "value = 1", "must be a Python file"),
        ("own.py:valeu", OWN, "unknown name 'valeu': did you mean value"),
        ("own.py:_hiden", OWN, "unknown name '_hiden': there are Point"),
        ("own.py:", OWN, "the name after ':'"),
        ("own.py:x", "x = (", r"own\.py cannot be run: SyntaxError"),
        ("own.py:x", "\0", r"own\.py cannot be run: "),
        ("own.py:x", "1 / 0", "cannot be run: ZeroDivisionError: division by zero"),
        ("own.py:x", "import nosuch", "cannot be run: ModuleNotFoundError"),
    ],
)
def test_every_mistake_is_told(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name.partition(":")[0]).write_text(content)
    with pytest.raises(ValueError, match=told):
        value(tmp_path, name)


def test_a_file_that_cannot_be_run_leaves_no_module(own):
    folder = own(half="x = 1\n1 / 0\n")
    before = set(sys.modules)
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        value(folder, "half.py:x")
    assert not any(name.endswith("half") for name in set(sys.modules) - before)


@pytest.fixture
def far(tmp_path):
    """A folder that is not the suite's, with a module."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "lib_of_mine.py").write_text("value = 1")
    return tmp_path / "far"


LATER = [
    "import sys; sys.path.insert(0, {far!r})\nfrom lib_of_mine import value",
    "import sys, importlib; sys.path.append({far!r})\n"
    "value = importlib.import_module('lib_of_mine').value",
]


@pytest.mark.parametrize("text", LATER)
def test_what_is_found_where_the_file_itself_has_looked_must_be_named(own, far, text):
    folder = own(suite__w=text.format(far=str(far))) / "suite"
    with pytest.raises(ValueError, match=r'sources = \["../far/lib_of_mine.py"\]'):
        value(folder)
    code = UserCode(folder, ["../far/lib_of_mine.py"])
    with code.importable():
        assert code.load("w.py:value") == 1
        code.check_imports()


def test_what_is_imported_while_a_trial_runs_must_be_named_too(own, far):
    text = (
        "def value():\n"
        f"    import sys; sys.path.append({str(far)!r})\n"
        "    import importlib; return importlib.import_module('lib_of_mine').value\n"
    )
    folder = own(suite__w=text) / "suite"
    code = UserCode(folder)
    with code.importable():
        late = code.load("w.py:value")
        code.check_imports()
        assert late() == 1
        with pytest.raises(ValueError, match=r"lib_of_mine.py is imported, but no"):
            code.check_imports()


def test_a_module_edited_after_its_import_by_others_is_refused(own, far, monkeypatch):
    monkeypatch.syspath_prepend(str(far))
    import_module("lib_of_mine")
    (far / "lib_of_mine.py").write_text("value = 2")
    folder = own(suite__w="from lib_of_mine import value") / "suite"
    with pytest.raises(ValueError, match="must not change after this process imported"):
        value(folder)
    del sys.modules["lib_of_mine"]
    assert value(folder)[0] == 2


@pytest.mark.parametrize("suffix", [".pyc", EXTENSION_SUFFIXES[0]])
def test_neighbours_without_a_source_count(own, suffix):
    folder = own(w="try:\n    import net\nexcept ImportError:\n    net = 3\nvalue = 1")
    path = folder / f"net{suffix}"
    path.write_bytes(b"one")
    before = UserCode(folder).sources("w.py:value", GROUP)
    assert sorted(before) == ["", "net"]
    path.write_bytes(b"two")
    if suffix == ".pyc":
        loading._first_seen.clear()  # as in another process
    else:
        with pytest.raises(ValueError, match="must not change after this process"):
            UserCode(folder).sources("w.py:value", GROUP)
        loading._first_seen.clear()
    assert UserCode(folder).sources("w.py:value", GROUP)["net"] != before["net"]


def test_a_home_directory_is_filled_in_for_sources(own, monkeypatch):
    folder = own(w="value = 1")
    (folder / "c.json").write_text("1")
    monkeypatch.setenv("HOME", str(folder))
    assert list(UserCode(folder, ["~/c.json"]).extra_sources()) == ["~/c.json"]
