import math
import os
import re
import shutil
import stat
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchramp.benchmark.charts import write_chart
from batchramp.benchmark.escaping import printable
from batchramp.benchmark.report import to_html, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "link", "img", "br", "hr", "use", "path", "rect", "line", "circle"}


class Page(HTMLParser):
    """What the tests ask of a page: its elements, texts and whether tags close."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def race(run_of, trial):
    loss = [2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.01]
    return run_of(
        {
            "cosine <32>": {
                "trials": [trial(k, loss=loss) for k in (2, 2, 3, 3, 4, 4)]
            },
            "growing": {
                "trials": [
                    *(trial(k, loss=loss) for k in (2, 3, 4, 5, None)),
                    {
                        "metric": [0.1, 0.2, float("nan")],
                        "loss": [2.0, 5.0, float("nan")],
                        "status": "diverged",
                    },
                ],
                "tuning": "paper defaults",
            },
            "never": {
                "trials": [trial(None, loss=loss)] * 6,
                "panel": 1,
                "baseline": "never",
            },
        },
        targets=["metric >= 0.9", "full_train_loss <= 0.1"],
        suite={"panel": [{"title": "First & last"}, {"weight_decay": 5e-3}]},
    )


@pytest.fixture(scope="module")
def html(race):
    return to_html(race)


def test_the_page_needs_nothing_but_itself(html):
    page = Page(html)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))
    used = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", html)
    assert {first or second for first, second in used} <= set(identities)


def test_the_page_can_be_read_without_seeing_it(html):
    page = Page(html)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) >= 1
    assert len(page.all("h1")) == 1
    figures = page.all("figure")
    # Two panels, each with a loss curve, a metric curve and its races.
    assert len(figures) == len(page.all("svg")) == 6
    for attributes in figures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 40
    assert all(attributes["scope"] in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 8
    races = [a["aria-label"] for a in figures if "not reached" in a["aria-label"]]
    assert any("never to metric >= 0.9: 0 of 6" in label for label in races)


def test_the_page_says_what_the_tables_say(html):
    page = Page(html)
    for told in (
        "hand-made",
        "Panel 1: First & last",
        "Panel 2: weight_decay 0.005",
        "cosine <32>",
        "baseline, tuned",
        "paper defaults",
        "4 of 6",
        "not reached",
        "[20, inf]",
        "interval at 96.9%, n = 6",
        "How this is counted",
        "compilation",
        "a <fast> one",
        "1 diverged",
    ):
        assert told in page.text, told


def test_labels_cannot_break_the_page(html):
    assert "<32>" not in html
    assert "<fast>" not in html


def test_colours_follow_the_page(html):
    assert "prefers-color-scheme: dark" in html
    assert "currentColor" in html
    assert "<text" in html  # letters stay letters


def test_the_file_is_replaced_whole(race, html, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(race, path)
    assert path.read_text(encoding="utf-8") == html
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(FileNotFoundError):
        write_report(race, tmp_path / "absent" / "report.html")


def test_empty_and_single_runs_are_drawn(run_of, trial):
    nothing = run_of({"a": {"trials": [], "seeds": 3}}, targets=[])
    assert "What the budget cost" in to_html(nothing)
    single = run_of({"a": {"trials": [trial(None, looks=2)]}})
    assert "range at 0%, n = 1" in to_html(single)


def test_a_chart_is_a_picture(race, tmp_path):
    path = tmp_path / "chart.png"
    write_chart(race, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"panel must be one of \[0, 1\], got 7"):
        write_chart(race, path, panel=7)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
def test_a_browser_shows_the_page(race, tmp_path):
    path = tmp_path / "report.html"
    write_report(race, path)
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    page = Page(done.stdout)
    assert len(page.all("svg")) == 6
    assert len(page.all("table")) == 8
    assert "cosine <32>" in page.text


def test_the_search_and_what_a_panel_lacks_are_shown(run_of, trial):
    search = {"lr": [0.1, 0.2, 0.4], "score": [-1.5, -2.25, math.inf], "seeds": 3}
    panel = {
        "entry": [{"label": "a", "baseline": "a", "search": search}],
        "missing_baselines": ["no constant batch at its largest rate, 0.4"],
    }
    suite = {"panel": [panel], "search_score": "mean log loss"}
    page = to_html(run_of({"a": {"trials": [trial(2)] * 2}}, suite=suite))
    assert "0.1: -1.50; 0.2: -2.25; 0.4: inf" in page
    assert "3 rates x 3 seeds" in page
    assert "mean log loss" in page
    assert "no constant batch at its largest rate, 0.4" in page


FAILURE = {
    "metric": [0.1],
    "status": "failed",
    "error": "KeyError: '<b>x</b>' (w.py:23, in loss)",
    "traceback": 'Traceback:\n  File "w.py", line 23\n\x1b[31mKeyError\x1b[0m',
}


def test_the_page_tells_notes_and_each_error_once(run_of, trial):
    html = to_html(run_of({"a": {"trials": [trial(2), FAILURE, FAILURE], "seeds": 5}}))
    assert "Take care: of 5 trials 2 failed and 2 not run" in Page(html).text
    assert html.count("KeyError: &#39;&lt;b&gt;x") == 1
    assert "2 trials: a, seeds 1 and 2" in html
    # All of the traceback is there, folded away, and nothing in it is obeyed.
    assert re.search(r"<details><summary>.*</summary>\n<pre.*>Traceback:\n  File", html)
    assert r"\x1b[31mKeyError\x1b[0m" in html
    assert Page(html).open == ["html"] or Page(html).open == []


def test_a_run_without_errors_has_no_place_for_them(html):
    assert "<details>" not in html
    assert "Why trials failed" not in html


ODD = (
    "$x_{1}^",
    "_hidden",
    "$",
    "a $\\frac$ b $",
    "\\alpha & <script>alert(1)</script>",
    'url(#a) href="#b" id="c" #717273 <metadata>',
    "{{ 7 * 7 }} {% raw %}",
    "\U0001f600 雪 שלום \u202egnp",
    "line\nbreak\ttab\x1b[2J\x00",
    "long " * 60,
    "l" * 300,
    "-->",
)


def check_page(html, *texts):
    page = Page(html)
    assert not page.all("script")
    for text in texts:
        assert " ".join(printable(text).split()) in page.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]", html)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ET.fromstring(drawing.replace("xlink:href", "href"))


def labelled(run_of, trial, first, second, title):
    trials = {"trials": [trial(2), trial(None)]}
    panel = {"title": title}
    return run_of(
        {first: trials, second: trials}, suite={"name": title, "panel": [panel]}
    )


@pytest.mark.parametrize("texts", [*zip(ODD[::2], ODD[1::2], strict=True)])
def test_any_text_can_be_a_label(run_of, trial, texts):
    html = to_html(labelled(run_of, trial, *texts, texts[0]))
    check_page(html, *texts)
    # The drawings name them too: as they are, or with the middle left out.
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    for text in texts:
        start = " ".join(printable(text)[:12].split())
        assert all(start in Page(drawing).text for drawing in drawings)


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
        min_size=3,
        max_size=3,
        unique=True,
    )
)
def test_any_texts_can_be_labels(run_of, trial, texts):
    check_page(to_html(labelled(run_of, trial, *texts)), *texts)


def test_the_users_style_changes_nothing(race, html, tmp_path):
    users = {
        "text.usetex": True,
        "lines.linewidth": 9,
        "font.size": 30,
        "axes.spines.left": False,
        "svg.fonttype": "path",
        "backend": "pdf",
    }
    with mpl.rc_context(users):
        assert to_html(race) == html
        assert mpl.rcParams["font.size"] == 30
        write_chart(race, tmp_path / "a.svg")
    write_chart(race, tmp_path / "b.svg")
    drawn = [(tmp_path / name).read_text() for name in ("a.svg", "b.svg")]
    assert [text.count("stroke-width: 9") for text in drawn] == [0, 0]


@pytest.fixture(scope="module")
def small(run_of, trial):
    return run_of({"a": {"trials": [trial(2)]}}, targets=[])


def test_a_link_stays_and_its_file_is_replaced(small, tmp_path):
    real, link = tmp_path / "real.html", tmp_path / "folder" / "link.html"
    link.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(Path("..") / "real.html")
    write_report(small, link)
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == to_html(small)
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling.html"
    dangling.symlink_to("made.html")
    write_report(small, dangling)
    assert (tmp_path / "made.html").read_text(encoding="utf-8") == to_html(small)
    assert dangling.is_symlink()
    assert not [*tmp_path.rglob("*.partial")]


def test_a_pipe_is_written_into_and_a_device_stays(small, tmp_path):
    write_report(small, os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)  # noqa: PTH116
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text("utf-8")))
    reader.start()
    write_report(small, pipe)
    reader.join()
    assert read == [to_html(small)]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_path_is_literal_and_home_is_filled_in(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_report(small, "~/[a]*.html")
    assert [file.name for file in tmp_path.iterdir()] == ["[a]*.html"]


@pytest.mark.parametrize("place", ["", "none/x.html", "file/x.html", "loop"])
def test_a_page_that_cannot_be_written_names_its_path(small, tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / place
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=re.escape(f"'{path}'")):
        write_report(small, path)
    assert sorted(tmp_path.rglob("*")) == before
