"""What a rank's process runs: a function of a test's file, its answer in a file of JSON."""

import json
import multiprocessing
import os
import runpy
import traceback
from pathlib import Path

if __name__ == "__main__":
    job = globals()["JOB"]
    os.environ.update(job["environment"])
    # Else a loader's workers come of a fork server of their own, without torch.
    multiprocessing.set_start_method("fork", force=True)
    try:
        arguments = job["arguments"]
        if job["trained"] is not None:
            kills = runpy.run_path(str(Path(__file__).with_name("kills.py")))
            arguments = (kills["Trained"](**job["trained"]), *arguments)
        answer = runpy.run_path(job["file"])[job["function"]](*arguments)
        said = {"answer": answer}
    except BaseException:
        said = {"error": traceback.format_exc()}
    Path(job["answer"]).write_text(json.dumps(said))
    # Not by way of the interpreter's end, which gloo's threads abort now and then.
    os._exit(0)
