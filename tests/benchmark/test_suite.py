import gzip
import itertools
import struct
import tomllib
from contextlib import contextmanager

import pytest

from batchramp.benchmark.runner import make_race, run
from batchramp.benchmark.suite import (
    load_suite,
    make_suite,
    parse_suite,
    with_measures,
    with_seeds,
)

SUITE = """\
name = "tiny"
workload = "digits"
epochs = 1
cadence = 0.5
seeds = 1
threads = 1
[[panel]]
baseline = "a"
targets = ["metric >= 0.5"]
[[panel.entry]]
label = "a"
schedule = "constant"
set = { lr = 0.1, batch_size = 32 }
[[panel.entry]]
label = "b"
schedule = "noise-scale"
set = { lr = 0.1, max_batch_size = 256 }
"""

SEARCH = "\n[panel.entry.search]\n"
BEST = "lr = [0.01, 0.1, 0.2, 0.4, 0.8]\nscore = [3, 1, 2, 4, inf]\nseeds = 3\n"
BATCH = "batch_size = 32"

OF_DESIGN = """\
name = "x"
workload = "digits"
epochs = 12
cadence = 0.25                     # epochs
seeds = 8
[[panel]]
weight_decay = 0.0
baseline = "cosine 32"
targets = ["metric >= 0.96", "full_train_loss <= 0.02"]
[[panel.entry]]
label = "cosine 32"                # unique in the suite
schedule = "umeda-constant"
set = { decay = "cosine", lr = 0.8 }
"""


@pytest.fixture
def resolve(tmp_path):
    """Reads a suite as the command does, plans and data included."""

    def read(text, **arguments):
        path = tmp_path / "suite.toml"
        path.write_text(text, encoding="utf-8")
        return make_race(path, out=tmp_path / "out", **arguments).prepare()

    return read


@contextmanager
def refusal(told):
    with pytest.raises(ValueError, match=r".") as refused:
        yield refused
    for part in told:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        # Unknown names, with the nearest.
        ("cadence =", "cadense =", ["key of a suite 'cadense'", "cadence"]),
        ("targets", "target", ["key of a panel 'target'", "targets"]),
        ("label", "lable", ["key of an entry 'lable'", "label"]),
        ("digits", "digit", ["workload 'digit'", "digits"]),
        ('"constant"', '"constnat"', ["entry 'a'", "'constnat'", "constant"]),
        ("lr = 0.1, b", "rl = 0.1, b", ["entry 'a'", "constant 'rl'", "lr"]),
        ("seeds", "boundary = 'warp'\nseeds", ["boundary 'warp'", "wrap"]),
        ("seeds", "measures.metrik = 1\nseeds", ["'metrik'", "gradient_norm"]),
        # Batch sizes.
        (BATCH, "batch_size = 0", ["'a'", "batch_size", "at least 1", "0"]),
        (BATCH, "batch_size = -8", ["'a'", "batch_size", "at least 1", "-8"]),
        (BATCH, "batch_size = 2.5", ["'a'", "batch_size", "whole", "2.5"]),
        (BATCH, "batch_size = true", ["'a'", "batch_size", "whole", "True"]),
        (BATCH, "batch_size = '8'", ["'a'", "batch_size", "whole", "'8'"]),
        (BATCH, "batch_size = 1298", ["'a'", "batch_size", "at most 1297", "1298"]),
        ("size = 256", "size = 1298", ["'b'", "max_batch_size", "at most 1297"]),
        # Numbers out of range.
        ("epochs = 1", "epochs = 0", ["epochs", "above 0", "0"]),
        ("epochs = 1", "epochs = -1", ["epochs", "above 0", "-1"]),
        ("epochs = 1", "epochs = nan", ["epochs", "finite", "nan"]),
        ("epochs = 1", "epochs = inf", ["epochs", "finite", "inf"]),
        ("epochs = 1", "epochs = 'x'", ["epochs", "number", "'x'"]),
        ("epochs = 1", "epochs = '1e999999999'", ["epochs", "'1e999999999'"]),
        ("epochs = 1", "epochs = 0.5", ["cadence must be below epochs (0.5)"]),
        ("threads = 1", "threads = 100000", ["threads must be at most 1024"]),
        ("metric >= 0.5", "gradient_norm <= 1", ["set measures.gradient_norm", "1"]),
        ("cadence = 0.5", "cadence = 0", ["cadence", "above 0", "0"]),
        ("cadence = 0.5", "cadence = nan", ["cadence", "finite", "nan"]),
        ("seeds", "measures.gradient_norm = 0\nseeds", ["measures.gradient_norm"]),
        ("seeds = 1", "seeds = 0", ["seeds", "at least 1", "0"]),
        ("threads = 1", "threads = 0", ["threads", "at least 1", "0"]),
        ("threads", "micro_batch = 0\nthreads", ["micro_batch", "at least 1", "0"]),
        ("threads", "first_seed = -1\nthreads", ["first_seed", "at least 0", "-1"]),
        ("threads", f"first_seed = {2**63}\nthreads", ["first_seed", str(2**63)]),
        ("lr = 0.1, b", "lr = nan, b", ["'a'", "lr", "finite", "nan"]),
        ("lr = 0.1, b", "lr = 0, b", ["'a'", "lr", "above 0", "0"]),
        ("targets", "weight_decay = nan\ntargets", ["weight_decay", "finite", "nan"]),
        ("targets", "weight_decay = -1\ntargets", ["weight_decay", "at least 0"]),
        # Values of another kind.
        ("seeds = 1", "seeds = 2.5", ["seeds", "int", "2.5"]),
        ("seeds = 1", "seeds = '3'", ["seeds", "int", "'3'"]),
        ("seeds = 1", "seeds = true", ["seeds", "int", "True"]),
        ("label = 'a'", "label = 3", ["panel[0].entry[0].label", "str", "3"]),
        ("targets = [", "targets = [7, ", ["panel[0].targets[0]", "str", "7"]),
        ("epochs = 1", "", ["epochs"]),
        ("baseline = 'a'", "", ["panel[0]", "baseline"]),
        ("name = 'tiny'", "name = '../tiny'", ["name", "folder", "'../tiny'"]),
        ("name = 'tiny'", "name = ''", ["name", "folder", "''"]),
        ("name =", "name", ["line 1"]),
        # Files that it depends on.
        ("threads", "sources = 'a.json'\nthreads", ["sources", "array", "'a.json'"]),
        ("threads", "sources = [3]\nthreads", ["sources[0]", "str", "3"]),
        ("threads", "sources = [' ']\nthreads", ["sources", "paths of files", "' '"]),
        ("threads", "sources = ['a', 'a']\nthreads", ["sources", "once", "'a'"]),
        # Numbers without a limit of size.
        (
            "epochs = 1",
            f"epochs = {'9' * 400}",
            ["epochs", "at most 100 digits", "40"],
        ),
        ("epochs = 1", f"epochs = '{'9' * 10**5}'", ["epochs", "at most 100 digits"]),
        ("epochs = 1", f"epochs = 1e{'9' * 400}", ["epochs", "finite", "inf"]),
        ("epochs = 1", "epochs = 1e300", ["at most 1000000 looks in 1e+300 epochs"]),
        ("seeds = 1", f"seeds = {'9' * 400}", ["seeds", "at most", "some 401 digits"]),
        ("seeds = 1", f"seeds = {'9' * 4999}", ["4300 digits", "line 5"]),
        ("seeds = 1", "seeds = 1_000_000_000", ["seeds", "1000000", "1000000000"]),
        ("seeds = 1", "seeds = 600_000", ["at most 500000 with 2 entries", "600000"]),
        (
            "cadence = 0.5",
            "cadence = 1e-9",
            ["cadence", "at most 1000000 looks", "1e-09"],
        ),
        ("threads = 1", f"threads = {'9' * 400}", ["threads", "at most 1024", "401"]),
        ("threads", f"micro_batch = {2**64}\nthreads", ["micro_batch", str(2**63)]),
        ("threads", f"first_seed = {'9' * 400}\nthreads", ["first_seed", "401 digits"]),
        ("targets", f"weight_decay = {'9' * 400}\ntargets", ["weight_decay"]),
        (BATCH, f"batch_size = {'9' * 400}", ["'a'", "batch_size", "at most 2**63"]),
        (BATCH, "milestones = [[[[[[1]]]]]]", ["'a'", "milestones"]),
        (BATCH, f"x = {'[' * 99}{']' * 99}", ["nest at most 32"]),
        # Neither number nor text.
        ("epochs = 1", "epochs = true", ["epochs", "int | float | str", "True"]),
        (
            "epochs = 1",
            "epochs = 2026-11-25",
            ["epochs", "datetime.date(2026, 11, 25)"],
        ),
        ("seeds = 1", "seeds = 12:00:00", ["seeds", "int", "datetime.time(12, 0)"]),
        (
            BATCH,
            "batch_size = 2026-11-25",
            ["batch_size of entry 'a'", "datetime.date"],
        ),
        (BATCH, "x = [{ y = 12:00:00 }]", ["x of entry 'a'", "datetime.time"]),
        # Texts that tables show.
        ("label = 'b'", 'label = "b\\u001b[2J"', ["label", "control", "U+001B"]),
        ("label = 'b'", 'label = "b\\u202e"', ["label", "control", "U+202E"]),
        ("label = 'b'", 'label = "b\\nc"', ["label", "control", "U+000A"]),
        ("label = 'b'", f"label = '{'b' * 201}'", ["label", "at most 200 characters"]),
        ("name = 'tiny'", 'name = "t\\u0007"', ["name", "control", "U+0007"]),
        (
            "name = 'tiny'",
            f"name = '{'t' * 10**5}'",
            ["name", "at most 200 characters"],
        ),
        ("targets", 'title = "a\\u0085"\ntargets', ["title", "control", "U+0085"]),
        ("threads", 'search_score = "\\u2067"\nthreads', ["search_score", "U+2067"]),
        ("threads", 'sources = ["\\u0000"]\nthreads', ["sources", "U+0000"]),
        ('"constant"', '"con\\u001bstant"', ["schedule", "control", "U+001B"]),
        ("digits", "dig\\u0007its", ["workload", "control", "U+0007"]),
        ("digits", "x" * 5000, ["workload", "at most 4096 characters"]),
        (BATCH, '"b\\n" = 1', ["key of set of entry 'a'", "control", "U+000A"]),
        (BATCH, f"{'b' * 5000} = 1", ["key of set of entry 'a'", "200 characters"]),
        # Labels and targets.
        ("metric >= 0.5", "accuracy >= .5", ["target", "'metric'"]),
        ("label = 'b'", "label = 'a'", ["label", "unique", "'a'"]),
        ("baseline = 'a'", "baseline = 'aa'", ["baseline 'aa'", "a"]),
        ("label = 'b'", "label = 'b'\nbaseline = 'c'", ["baseline 'c'"]),
        ("metric >= 0.5", "metric > 0.5", ["target", "'>='", "metric > 0.5"]),
        ("metric >= 0.5", "metrics >= 0.5", ["target", "'metrics'", "metric"]),
    ],
    ids=itertools.count(),
)
def test_a_refusal_names_the_key_the_rule_and_the_value(resolve, old, new, told):
    old = old.replace("'", '"')
    assert old in SUITE
    with refusal(told) as refused:
        resolve(SUITE.replace(old, new, 1))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0.01, ", "", ["at least 5 rates", "4 rates"]),
        ("score = [3, ", "score = [", ["a score for each", "4 scores"]),
        ("seeds = 3", "seeds = 2", ["3 seeds", "2 seeds"]),
        ("[3, 1, 2", "[1, 3, 2", ["best score at lr 0.01", "got lr 0.1"]),
        ("[3, 1", "[nan, 1", ["scores", "nan"]),
        ("0.4, 0.8", "0.8, 0.4", ["increasing", "0.8, 0.4"]),
        ("seeds", "seed", ["key of a search 'seed'", "seeds"]),
        ("lr = [0.01", "lr = ['0.01'", ["entry[0].search.lr[0]", "'0.01'"]),
    ],
)
def test_a_search_is_held_to_what_it_must_show(old, new, told):
    first = SUITE.partition('\n[[panel.entry]]\nlabel = "b"')[0]
    assert parse_suite(first + SEARCH + BEST).panels[0].entries[0].tuning == "tuned"
    assert old in BEST
    with refusal(told):
        parse_suite(first + SEARCH + BEST.replace(old, new, 1))


def test_a_suite_needs_an_entry():
    for panels in ("panel = []", "[[panel]]\nbaseline = 'a'\nentry = []"):
        head = SUITE.partition("[[panel]]")[0]
        with pytest.raises(ValueError, match=r"entry|baseline 'a'"):
            parse_suite(head + panels)


def test_an_unknown_suite_gets_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"suite 'quik'.*quick.*nor is there a file"):
        load_suite("quik")
    with pytest.raises(ValueError, match="nor is there a file"):
        load_suite(tmp_path)
    (tmp_path / "bad.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ValueError, match=r"bad\.toml"):
        load_suite(tmp_path / "bad.toml")


OWN = """
from batchramp.schedules import Schedule
from batchramp.workloads import Workload
number = 3
def nothing(data_dir, seed): return None
def damaged(data_dir, seed): raise OSError("disk on fire")
no_data = Workload(name="mine", load=nothing, model=lambda: None)
no_disk = Workload(name="mine", load=damaged, model=lambda: None)
class Broken(Schedule):
    name = "broken"
    def parameters(self): return {}
    def init(self, horizon): return 1 / 0
    decide = events = restore = None
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("digits", "none.py:x", ["none.py"]),
        ("digits", "own.py:no_dat", ["own.py", "'no_dat'", "no_data"]),
        ("digits", "own.py:number", ["own.py:number", "Workload", "int"]),
        ("digits", "own.py:no_data", ["'mine'", "Data", "NoneType"]),
        ("digits", "own.py:no_disk", ["'mine'", "OSError", "disk on fire"]),
        ("digits", "wrong.py:x", ["wrong.py", "SyntaxError"]),
        ("digits", "suite.toml:x", ["suite.toml", "Python file"]),
        ('"constant"', '"own.py:number"', ["'a'", "own.py:number", "Schedule", "3"]),
        ('"constant"', '"own.py:Broken"', ["'a'", "own.py:Broken", "'lr'"]),
        ('"noise-scale"\nset', '"own.py:Broken"\n#', ["'b'", "ZeroDivisionError"]),
    ],
)
def test_errors_of_ones_own_files_say_where(resolve, tmp_path, old, new, told):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "wrong.py").write_text("x = (")
    with refusal(told):
        resolve(SUITE.replace(old, new, 1))


def write_images(folder, images=40, side=28):
    """Four tiny IDX files, as Fashion-MNIST's."""
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = bytes(i % 251 for i in range(images * side * side))
        header = b"\0\0\x08\x03" + struct.pack(">3I", images, side, side)
        path = folder / f"{part}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(header + pixels))
        labels = bytes(i % 10 for i in range(images))
        header = b"\0\0\x08\x01" + struct.pack(">I", images)
        path = folder / f"{part}-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(header + labels))


FASHION = SUITE.partition('[[panel.entry]]\nlabel = "b"')[0].replace(
    "digits", "fashion_mnist"
)


def test_data_are_looked_for_where_the_user_says(resolve, tmp_path):
    with refusal(["fashion_mnist", "--data DIR", "train-images-idx3-ubyte.gz"]):
        resolve(FASHION)
    with refusal([f"{tmp_path}/none must exist"]):
        resolve(FASHION, data=tmp_path / "none")
    with refusal([f"{tmp_path} must hold fashion-mnist/", "does not"]):
        resolve(FASHION, data=tmp_path)
    write_images(tmp_path / "data" / "fashion-mnist")
    resolved, trials = resolve(FASHION, data=tmp_path / "data")
    assert resolved.num_samples == 40
    assert len(trials) == 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file[: len(file) // 2], ["EOFError"]),
        (lambda file: b"", ["00 00 08"]),
        (lambda file: b"no gzip", ["BadGzipFile"]),
        (lambda file: gzip.compress(b"\0\0\x0d\x01"), ["00 00 08"]),
        (lambda file: gzip.compress(gzip.decompress(file)[:-1]), ["39 values"]),
    ],
)
def test_damaged_data_are_named(resolve, tmp_path, damage, told):
    folder = tmp_path / "data" / "fashion-mnist"
    write_images(folder)
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with refusal([f"{path} is damaged", *told]):
        resolve(FASHION, data=tmp_path / "data")


def test_the_suite_of_the_design_runs(resolve, tmp_path):
    _, trials = resolve(OF_DESIGN)
    assert len(trials) == 8
    # On one thread: more of them wait for each other where cores are shared.
    suite = parse_suite("threads = 1\n" + OF_DESIGN)
    results = run(suite, out=tmp_path / "out")
    entry = results.entries.to_dicts()[0]
    assert entry["schedule_name"] == "umeda-constant"
    assert entry["targets"] == ["metric >= 0.96", "full_train_loss <= 0.02"]
    assert entry["seeds"] == results.rows["trial"].n_unique() == 8
    assert set(results.rows["status"]) == {"finished"}
    # A target's own column is measured at every look.
    assert results.rows.height == 8 * (1 + 4 * 12)
    assert results.rows["full_train_loss"].null_count() == 0


def test_targets_of_the_workload_stand_in_and_are_measured(resolve):
    text = SUITE.replace('targets = ["metric >= 0.5"]', "")
    resolved, trials = resolve(text)
    written = resolved.to_toml(trials)["panel"][0]["targets"]
    assert written == ["metric >= 0.96", "full_train_loss <= 0.02"]
    assert trials[0].identity["measures"] == {"full_train_loss": "1/2"}


def test_what_a_suite_leaves_out_has_a_default():
    suite = parse_suite(SUITE.replace("cadence = 0.5", "").replace("seeds = 1", ""))
    assert (suite.seeds, suite.cadence, suite.boundary) == (8, 0.25, "keep")
    assert [entry.tuning for _, entry in suite.entries()] == ["as set", "as set"]
    plain = SUITE.replace("set = { lr = 0.1, batch_size = 32 }", "")
    assert parse_suite(plain).panels[0].entries[0].tuning == "paper defaults"


def test_a_suite_names_the_files_it_depends_on():
    assert parse_suite(SUITE).sources == ()
    suite = parse_suite(SUITE.replace("threads", 'sources = ["a.json"]\nthreads', 1))
    assert suite.sources == ("a.json",)
    assert suite.to_dict()["sources"] == ["a.json"]


def test_a_suite_survives_being_written():
    suite, folder = load_suite("quick")
    assert folder is None
    assert make_suite(suite.to_dict()) == suite


def test_the_number_of_seeds_can_be_changed():
    suite = parse_suite(SUITE)
    assert with_seeds(suite, None) is suite
    assert with_seeds(suite, 3).seeds == 3
    for seeds in (0, 2.5, True, "3"):
        with pytest.raises(ValueError, match="seeds"):
            with_seeds(suite, seeds)


def test_measures_are_added_at_every_look_unless_the_suite_says_when():
    table = tomllib.loads(SUITE) | {"measures": {"sharpness": 2}}
    suite = with_measures(make_suite(table), ["noise-scale", " sharpness", "variance"])
    assert suite.measures == {
        "noise_scale": suite.cadence,
        "variance": suite.cadence,
        "sharpness": 2,
    }
    for wrong in ("sharpnes", ""):
        with pytest.raises(ValueError, match="unknown measure"):
            with_measures(suite, [wrong])
    for wrong in (3, None, "sharpness", [3], [None], [["sharpness"]]):
        with pytest.raises(ValueError, match=r"measure must be a (list|string)"):
            with_measures(suite, wrong)


def test_labels_may_be_in_any_script(resolve):
    _, trials = resolve(SUITE.replace('"a"', '"größer"'))
    assert {trial.label for trial in trials} == {"größer", "b"}


def test_quick_is_an_honest_comparison():
    suite, _ = load_suite("quick")
    assert suite.workload == "digits"
    assert len(suite.panels) == 2
    for panel in suite.panels:
        by_label = {entry.label: entry for entry in panel.entries}
        assert by_label[panel.baseline].schedule == "constant-cosine"
        assert len(panel.targets) >= 2
        untuned = [entry for entry in panel.entries if entry.search is None]
        # The constant batch at the panel's largest rate follows from the others'.
        assert [entry.schedule for entry in untuned] == ["constant"]
        rates = [e.set.get("max_lr", e.set["lr"]) for e in panel.entries]
        assert untuned[0].set["lr"] == max(rates)
    assert suite.search_score


def test_batch_size_scales_its_rates_as_it_says():
    suite, _ = load_suite("batch-size")
    same, scaled = suite.panels
    for panel, expected in ((same, lambda _: 0.2), (scaled, lambda b: 0.2 * b / 32)):
        held = [entry.set for entry in panel.entries if entry.search is None]
        assert [entry["batch_size"] for entry in held] == [8, 32, 128, 512]
        rates = [expected(entry["batch_size"]) for entry in held]
        assert [entry["lr"] for entry in held] == pytest.approx(rates)
        baseline = next(e for e in panel.entries if e.label == panel.baseline)
        assert baseline.schedule == "constant-cosine"
        assert baseline.search is not None
    measured = {"gradient_norm", "variance", "noise_scale", "sharpness", "batch_mean"}
    assert measured == set(suite.measures)
