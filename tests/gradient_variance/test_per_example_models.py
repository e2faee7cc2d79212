"""Per-example statistics of many models beside a float64 loop; and what is refused.

The models are those of the table in `benches/results/statistics-models.md`.
"""

import pytest
from statistics_cases import mixing, right
from statistics_models import look

# What vmap(grad) has no rule for, in any release so far.
ONE_BY_ONE = {
    "experts by nonzero",
    "checkpoint",
    "checkpoint, reentrant",
    "autograd function, older form",
    "branch by .item()",
    "writes in place",
    "GRU",
    "GRU cell",
    "packed LSTM",
    "transformer, mask only where padded",
}
BY_LAYERS = {
    "MLP",
    "MLP, bfloat16",
    "autocast inside",
    "autocast around",
    "convolutions",
}
HALF = ("bfloat16", "float16", "autocast")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", right(), ids=lambda case: case.name)
def test_statistics_are_those_of_a_loop_in_double_precision(case):
    if any(name in case.name for name in ("BERT", "GPT", "Llama")):
        pytest.importorskip("transformers", reason="needs the group trainers")
    way, error = look(case)
    if case.name in ONE_BY_ONE:
        assert way == "one by one"
    if case.name in BY_LAYERS:
        assert way == "layers"
    tolerance = 3e-6
    if any(name in case.name for name in HALF):
        tolerance = 0.02
    elif case.name == "MLP, converged":  # whose losses are rounding
        tolerance = 0.01
    elif "float64" in case.name:
        tolerance = 1e-13
    assert error < tolerance


@pytest.mark.parametrize("case", mixing(), ids=lambda case: case.name)
def test_samples_that_mix_are_refused(case):
    if "GPT" in case.name:
        pytest.importorskip("transformers", reason="needs the group trainers")
    way, why = look(case)
    assert way == "refused"
    assert ("loss must depend on" if "detached" in case.name else "not mix") in why
    assert "micro_batch_statistics" in why or "detached" in why
