import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from batchramp.benchmark.charts import write_chart
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
