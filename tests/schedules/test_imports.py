import subprocess
import sys


def test_planning_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, batchramp.schedules as schedules\n"
        "schedules.plan('umeda-warmup', decay='cosine').to_dict()\n"
        "print(*sorted({'torch', 'matplotlib', 'polars'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
