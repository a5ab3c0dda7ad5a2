"""Our side of `bench retrieval`: `python -P ours.py FOLDER`.

Reads FOLDER/config.json, trains, and writes the run into FOLDER/run, and FOLDER/trained.json.
Programs are compiled in this process: they are not taken from the cache of earlier runs.
"""

import json
import resource
import sys
import time
from pathlib import Path

THREADS = "threads"


def main(folder: Path) -> None:
    """Train as the configuration specifies."""
    import jax

    from modernbert_jax.io.host_memory import keep_freed_on_cpu
    from modernbert_jax.train.engine.metrics import read_rows
    from modernbert_jax.train.retrieval import config as retrieval
    from modernbert_jax.train.retrieval import training

    job = json.loads((folder / "config.json").read_text())
    keep_freed_on_cpu()
    jax.config.update("jax_num_cpu_devices", job.pop(THREADS))
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    config = retrieval.from_json(job)
    began = time.perf_counter()
    if training.train(config) is None:
        raise KeyboardInterrupt
    seconds = time.perf_counter() - began
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = [
        row for row in read_rows(Path(config.output) / "metrics.jsonl") if "seconds_step" in row
    ]
    last = rows[-1]
    aside = sum(last.get(f"seconds_{phase}", 0.0) for phase in ("save", "evaluate"))
    facts = {
        "seconds": seconds - aside,
        "step_seconds": last["seconds_step"] + last.get("seconds_data", 0.0),
        "compile_seconds": last.get("seconds_compile", 0.0),
        "peak_memory": memory,
        "steps": last["step"],
    }
    (folder / "trained.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
