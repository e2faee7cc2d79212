"""A room uses only rooms below it, and torch is loaded only where something is trained."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import batchramp

PACKAGE = Path(batchramp.__file__).parent
MODULES = {
    path.relative_to(PACKAGE.parent)
    .with_suffix("")
    .as_posix()
    .replace("/", ".")
    .removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# What each room may use of the others; its own files are always open to it.
LEAST = {"_rust", "values", "names", "user_code"}
VALUES = LEAST | {"schedules", "workloads"}
BELOW = {
    "values": set(),
    "names": {"_rust", "values"},
    "user_code": {"_rust", "values", "names"},
    "schedules": LEAST,
    "workloads": LEAST,
    "sampler": VALUES,
    "gradient_variance": VALUES,
    "training": VALUES | {"sampler", "gradient_variance"},
    "benchmark": VALUES | {"sampler", "gradient_variance", "training"},
    "pytest_plugin": VALUES | {"training", "benchmark"},
    "cli": VALUES | {"training", "benchmark"},
    "__main__": {"cli"},
}

FRAMES_ONLY = (
    "comparability",
    "comparison",
    "comparison_notes",
    "comparison_rows",
    "gate_statistics",
    "errors",
    "measured",
    "notes",
    "pairing",
    "passages",
    "results",
    "statistics",
    "swaps",
    "tables",
    "targets",
    "trial_files",
)


def imports(path):
    """Every module that a file names in an import, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner in MODULES or inner == "batchramp._rust"
                yield inner if is_module else node.module


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_every_room_is_known():
    assert {room(module) for module in MODULES} - {""} == set(BELOW)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_uses_only_rooms_below_it(module):
    if module == "batchramp":  # the front door, which opens each room on first use
        return
    mine = room(module)
    for used in imports(MODULES[module]):
        if used.partition(".")[0] == "batchramp" and used != "batchramp":
            assert room(used) in BELOW[mine] | {mine}, f"{module} uses {used}"


def test_schedules_never_name_torch():
    for module, path in MODULES.items():
        if room(module) in ("schedules", "values", "names", "user_code"):
            assert "torch" not in {used.partition(".")[0] for used in imports(path)}


@pytest.mark.parametrize("name", FRAMES_ONLY)
def test_tables_read_files_and_frames_only(name):
    inside = {f"batchramp.benchmark.{other}" for other in FRAMES_ONLY}
    inside |= {"batchramp.values", "batchramp.names"}
    outside = {"polars", "numpy", "scipy", "tomli_w", *sys.stdlib_module_names}
    for used in imports(PACKAGE / "benchmark" / f"{name}.py"):
        assert used in inside or used.partition(".")[0] in outside, used


def test_nothing_imports_scipy_stats():
    """It takes longer than all the rest of a table together."""
    for path in MODULES.values():
        for used in imports(path):
            assert not used.startswith("scipy.stats"), path


def loaded_after(code, *among):
    script = (
        f"{code}\nimport sys\n"
        f"print(*sorted({set(among)!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stderr.split()


def test_a_plan_loads_no_torch():
    code = (
        "import batchramp, batchramp.pytest_plugin\n"
        "from batchramp.cli import main\n"
        "assert batchramp.plan('smith-decay', boundary='wrap').updates == 78125\n"
        "assert batchramp.read_results and batchramp.Results and batchramp.Plan\n"
        "assert main(['plan', 'umeda-warmup']) == 0\n"
        "assert main(['list']) == 0\n"
    )
    assert loaded_after(code, "torch", "sklearn", "matplotlib", "scipy") == []


def test_the_package_itself_loads_next_to_nothing():
    heavy = ("torch", "polars", "numpy", "msgspec", "rich", "click")
    assert loaded_after("import batchramp", *heavy) == []


def test_what_the_package_offers_is_there():
    assert set(batchramp.__all__) >= {
        "GradientVariance",
        "NoiseScale",
        "Plan",
        "VariableBatchSampler",
        "plan",
        "read_results",
        "run",
    }
    for name in batchramp.__all__:
        assert getattr(batchramp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'pln'"):
        _ = batchramp.pln
