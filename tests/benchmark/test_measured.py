"""Tables and charts of measures, on hand-made runs of N = 100."""

import json
import math
from io import StringIO

import polars as pl
import pytest
from rich.console import Console

from batchramp.benchmark.measured import batch_mean_table, measured_table
from batchramp.benchmark.measured_charts import measured_charts, write_measured_chart
from batchramp.benchmark.measured_sheets import measured_sheets
from batchramp.benchmark.render import render, to_json
from batchramp.benchmark.report import to_html
from batchramp.benchmark.results import Results

NUM_SAMPLES = 100


def with_columns(results, **columns):
    return Results(
        rows=results.rows.with_columns(**columns),
        entries=results.entries,
        suite=results.suite,
        metadata=results.metadata,
    )


@pytest.fixture
def measured_run(run_of, trial):
    """Three schedules of three seeds, of batch sizes 5, 10 and 20; nothing measured."""

    def make(**columns):
        loss = [2.0, 1.0, 0.5, 0.25, 0.2, 0.1, 0.05]
        schedules = {
            label: {"trials": [trial(2, loss=loss) for _ in range(3)]}
            for label in ("five", "ten", "twenty")
        }
        results = run_of(schedules, suite={"num_samples": NUM_SAMPLES})
        size = pl.col("schedule").replace_strict({"five": 5, "ten": 10, "twenty": 20})
        return with_columns(with_columns(results, batch_size=size), **columns)

    return make


SHARE = 1 / pl.col("batch_size") - 1 / NUM_SAMPLES
AT_END = pl.col("updates") == 60


def test_an_exact_law_is_fitted_exactly(measured_run):
    trace = 1.0 + pl.col("updates")
    results = measured_run(
        variance=trace,
        batch_variance=1.1 * trace * SHARE,
        batch_bias=(pl.col("seed") - 1) * 0.1 * trace * SHARE,
    )
    table = batch_mean_table(results)
    assert table["batch_size"].to_list() == [5, 10, 20]
    assert table["seeds"].to_list() == [3, 3, 3]
    for name, value in (("slope", 1.0), ("expected", 1.1), ("bias", 0.0)):
        assert table[name].to_list() == pytest.approx([value] * 3, abs=1e-12)
    assert table["slope_high"][0] - table["slope_low"][0] < 1e-9
    # The seeds' biases over the variance are -1/11, 0 and 1/11; t(2) is 4.303 at 97.5%.
    half = 4.303 * (0.1 / 1.1) / math.sqrt(3)
    assert table["bias_high"].to_list() == pytest.approx([half] * 3, rel=1e-3)


def test_against_one_over_b_alone_the_slope_is_off(measured_run):
    results = measured_run(variance=1.0, batch_variance=1 / pl.col("batch_size"))
    results = with_columns(results, batch_bias=0.0)
    assert batch_mean_table(results)["slope"][0] < 0.97


def test_what_cannot_be_fitted_is_left_out(measured_run):
    none = measured_run()
    assert batch_mean_table(none).is_empty()
    assert measured_table(none).is_empty()
    assert measured_sheets(none, 0) == measured_charts(none, 0) == ()
    some = measured_run(
        variance=1.0,
        batch_bias=0.0,
        batch_variance=pl.when(pl.col("schedule") == "five")
        .then(math.nan)
        .when(pl.col("schedule") == "ten")
        .then(SHARE),
    )
    table = batch_mean_table(some)
    assert table["batch_size"].to_list() == [10]
    assert table["slope"].to_list() == [None]
    whole = with_columns(some, batch_size=pl.lit(NUM_SAMPLES))
    assert batch_mean_table(whole).is_empty()


def test_the_last_values_are_compared(measured_run):
    results = measured_run(
        sharpness=pl.when(pl.col("updates") <= 40).then(
            pl.col("seed") + 1.0 / (1 + pl.col("updates"))
        ),
        noise_scale=pl.when(AT_END & (pl.col("schedule") == "ten")).then(math.nan),
    )
    table = measured_table(results)
    assert table["schedule"].to_list() == ["five", "ten", "twenty"]
    assert table["is_baseline"].to_list() == [True, False, False]
    late = 1 / 41
    assert table["sharpness"].to_list() == pytest.approx([1 + late] * 3)
    assert table["sharpness_low"][0] == pytest.approx(late)
    assert table["sharpness_high"][0] == pytest.approx(2 + late)
    assert table["noise_scale"].to_list() == [None, math.inf, None]
    assert table["variance"].to_list() == [None] * 3


def test_failed_trials_do_not_count(measured_run):
    results = measured_run(variance=1.0, batch_variance=SHARE, batch_bias=0.0)
    failed = with_columns(results, status=pl.lit("failed"))
    assert measured_table(failed).is_empty()
    assert batch_mean_table(failed).is_empty()


@pytest.fixture
def everything(measured_run):
    return measured_run(
        variance=1.0,
        noise_scale=20.0 + pl.col("seed"),
        sharpness=3.0 / (1 + pl.col("updates")),
        sharpness_residual=0.001,
        batch_variance=SHARE,
        batch_bias=0.0,
    )


def test_terminal_page_and_json_show_the_same(everything):
    console = Console(width=100, record=True, file=StringIO())
    console.print(render(everything))
    text = console.export_text()
    page = to_html(everything)
    for shown in (text, page):
        assert "Measured last" in shown
        assert "The mean gradient of a batch" in shown
        assert "1.000 [1.000, 1.000]" in " ".join(shown.split())
    titles = ("Variance of a batch&#39;s mean gradient", "Sharpness on the way down")
    assert all(title in page for title in titles)
    assert "slope 1." in page
    (panel,) = json.loads(json.dumps(to_json(everything), allow_nan=False))["panels"]
    assert [row["noise_scale"] for row in panel["measured"]] == [21.0] * 3
    assert [row["batch_size"] for row in panel["batch_mean"]] == [5, 10, 20]


def test_both_charts_make_one_picture(everything, measured_run, tmp_path):
    write_measured_chart(everything, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="panel 0 must have measured"):
        write_measured_chart(measured_run(), tmp_path / "none.png")
