"""What a rank's process runs: a function of a test's file, its answer in a file of JSON."""

import json
import os
import runpy
import traceback
from pathlib import Path

if __name__ == "__main__":
    job = globals()["JOB"]
    os.environ.update(job["environment"])
    try:
        answer = runpy.run_path(job["file"])[job["function"]](*job["arguments"])
        said = {"answer": answer}
    except BaseException:
        said = {"error": traceback.format_exc()}
    Path(job["answer"]).write_text(json.dumps(said))
    # Not by way of the interpreter's end, which gloo's threads abort now and then.
    os._exit(0)
