import numpy as np
import pytest

from batchramp.benchmark.suite import (
    Entry,
    Panel,
    Suite,
    check_suite,
    load_suite,
    make_suite,
    parse_suite,
)
from batchramp.benchmark.toml_text import (
    MAX_BYTES,
    MAX_DEPTH,
    check_depth,
    parse_toml,
    read_toml,
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = .1", r"line 1, column 5\): a digit comes before the point: write 0.1$"),
        ("\n\tb = -.5e3", r"line 2, column 6\): .* write -0.5e3$"),
        ("a = [1, +.5]", r"line 1, column 9\): .* write \+0.5$"),
        ("a = { b = .5 }", r"line 1, column 11\): .* write 0.5$"),
        ("a = 1.", r"line 1, column 6\): a digit comes after the point: write 1.0$"),
        ("a = 01", r"line 1, column 6\): a whole number begins with no 0$"),
        ("a = True", r"column 5\): write true$"),
        ("a = False", r"column 5\): write false$"),
        ("a = None", r"column 5\): leave a key out that has no value$"),
        ("a = null", r"column 5\): leave a key out that has no value$"),
        ("a = 98%", r"column 7\): write a fraction, such as 0.5$"),
        ("a = digits", r'column 5\): a text needs quotes: write "digits"$'),
        ("a = own.py:Net", r'column 5\): a text needs quotes: write "own.py:Net"$'),
        # Where nothing is known to be meant, the place alone.
        ("a b = 1", r"Expected '=' .*\(at line 1, column 3\)$"),
        ("a = 1\na = 2\n", r"Cannot overwrite a value \(at line 2, column 6\)$"),
        ("[a]\n[a]", r"Cannot declare .* twice \(at line 2, column 3\)$"),
        ("a = '\x00'", r"\(at line 1, column 6\)$"),
        ("a = 'x", r"at end of document\)$"),
        ("a = " + "." * 10**6, r"Invalid value \(at line 1, column 5\)$"),
        # Without a limit of size.
        ("a = " + "[" * 100_000, f"^a suite must nest at most {MAX_DEPTH} arrays"),
        ("a = " + "{a=" * 100_000, f"^a suite must nest at most {MAX_DEPTH} arrays"),
        ("a." * 50_000 + "a = 1", f"^a suite must nest at most {MAX_DEPTH} arrays"),
        ("a = " + "[" * 40 + "]" * 40, f"^a suite must nest at most {MAX_DEPTH} "),
        (
            "a = 1\nb = " + "9" * 4301,
            r"^a number must have at most 4300 digits .*line 2",
        ),
    ],
    ids=range(24),
)
def test_where_text_is_no_toml_is_told_and_what_to_write(text, told):
    with pytest.raises(ValueError, match=told) as refused:
        parse_toml(text)
    assert len(str(refused.value)) < 200


def test_what_is_deep_enough_for_a_suite_is_read():
    text = "a = " + "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert list(parse_toml(text)) == ["a"]
    assert parse_toml("\ufeffa = 1") == {"a": 1}
    itself: list[object] = []
    itself += [itself, itself]
    with pytest.raises(ValueError, match="nest"):
        check_depth({"a": itself})


def test_a_file_may_have_a_byte_order_mark_and_must_be_utf_8(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'x'\r\n")
    assert read_toml(path) == "name = 'x'\r\n"
    path.write_bytes(b"name = 1\nb = '\xe4'")
    told = r"suite.toml: a suite must be UTF-8 text, got the byte 0xe4 at place 14 .*line 2"
    with pytest.raises(ValueError, match=told):
        load_suite(path)
    path.write_bytes("name = 'x'".encode("utf-16"))
    with pytest.raises(ValueError, match="must be UTF-8 text, got the byte 0xff"):
        load_suite(path)
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole, which costs no disk
    with pytest.raises(ValueError, match=f"at most {MAX_BYTES} bytes"):
        load_suite(path)


@pytest.mark.parametrize("read", [parse_suite, load_suite, make_suite])
@pytest.mark.parametrize("given", [3, None, b"name = 1", [1], 1.5, True])
def test_what_is_no_text_is_refused(read, given):
    with pytest.raises(ValueError, match=r"suite must be .*, got"):
        read(given)


@pytest.mark.parametrize(
    "name", ["x" * 10**6, "x\x00", "x" * 300, "\x1b[2J", ""], ids=range(5)
)
def test_a_suite_of_an_odd_name_is_none(name):
    with pytest.raises(ValueError, match="unknown suite") as refused:
        load_suite(name)
    assert len(str(refused.value)) < 400
    assert "\x1b" not in str(refused.value)


def own(**changed):
    panel = Panel(
        entries=(Entry(label="a", schedule="constant", set={"lr": 0.1}),), baseline="a"
    )
    asked = {"name": "x", "workload": "digits", "panels": (panel,), "epochs": 1}
    return Suite(**{**asked, **changed})


def test_a_suite_made_in_python_comes_out_as_its_toml_would():
    assert check_suite(own()) == own()
    given = own(seeds=np.int64(3), epochs=np.float64(2), micro_batch=np.int32(5))
    suite = check_suite(given)
    assert (suite.seeds, type(suite.seeds), suite.micro_batch) == (3, int, 5)
    assert isinstance(suite.epochs, float)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": 3}, "name must be of type str, got 3"),
        ({"panels": 3}, "panel must be of type array, got 3"),
        ({"panels": (3,)}, r"panel\[0\] must be of type object, got 3"),
        ({"seeds": 2.5}, "seeds must be of type int, got 2.5"),
        ({"seeds": object()}, "a suite must hold what TOML can say: got <object"),
        ({"epochs": 10**9999}, "epochs must have at most 100 digits"),
        ({"measures": {3: 1}}, "measures|measure"),
    ],
)
def test_a_suite_made_wrongly_in_python_is_refused(changed, told):
    with pytest.raises(ValueError, match=told):
        check_suite(own(**changed))
