"""The command: all parts within a budget, one JSON, one Markdown table, and the records."""

import shutil
import sys
import tempfile
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io import outputs
from modernbert_jax.io.files import write_bytes, write_json

from .. import children
from . import history, machine, page, recommendation, registry, schedule, table, workloads
from .processes import Processes
from .results import Result
from .scale import Scale

ROOT = Path(__file__).parents[3]
"""Root of the checkout that holds this file, if it is one."""

MINUTES = 8.0

TUNING = Path("modernbert_jax/attention/tuning.json")
"""The tuning file of the library."""

_BESIDE = (".md", ".log", ".tuning.json")
"""Endings of the files beside the output."""


def device(
    minutes: float = MINUTES,
    output: Path = Path("device.json"),
    parts: tuple[str, ...] = (),
    record: Path | None = None,
) -> int:
    """Checks and times everything on this device: kernels, training steps, encoding.

    Writes FILE.json, FILE.md with the same as tables, FILE.log and, where tiles were timed,
    FILE.tuning.json for MODERNBERT_JAX_TUNING: the best tiles, and the attention that was right and
    fastest. In a checkout an accelerator's run also decides what "auto" chooses, and is added to
    docs/results/hardware, and docs/results/hardware.md is made again. On a CPU shapes are tiny. The
    exit code is 1 if a part failed.

    Args:
        minutes: Time for all parts; the most telling ones come first.
        output: File to write, ending in .json.
        parts: Names or groups of parts to run. By default all.
        record: Adds a run's JSON file, which was made elsewhere, to docs/results/hardware; runs
            nothing.
    """
    if record is not None:
        run = history.read_run(record)
        print(f"{_add(run)}: added")
        return 0
    if not minutes > 0:
        raise UserError(f"minutes is {minutes}; it must be more than 0")
    if output.suffix != ".json":
        raise UserError(f"output is {output}; it must end in .json")
    outputs.check_file(output, replaces=".json")
    for ending in _BESIDE:  # replaced with the JSON file, and not otherwise
        outputs.check_file(output.with_suffix(ending), replaces="" if output.exists() else None)
    chosen = schedule.choose(registry.parts(), parts)
    run = _run(chosen, minutes, output)
    recommendation.adopt(output.with_suffix(".tuning.json"), run)
    before = history.runs(ROOT / page.FOLDER, run["device"]) if _in_checkout() else []
    slower = history.slower(run, before[-1]) if before else {}
    text = table.markdown(run, slower)
    write_bytes(output.with_suffix(".md"), text.encode())
    print(text)
    print(f"{output}, {output.with_suffix('.md')}: written")
    if _in_checkout() and run["platform"] != "cpu" and not parts:
        print(f"{_add(run)}: added")
    failed = [r["name"] for r in run["results"] if r["status"] == "failed"]
    if failed:
        print(f"failed: {', '.join(failed)}; {output} has the tracebacks", file=sys.stderr)
    return 1 if failed else 0


def _run(parts: list[registry.Part], minutes: float, output: Path) -> dict:
    """Runs the parts; leaves the log and the tuning file beside the output."""
    budget = schedule.Budget(60 * minutes)
    with (
        children.ended_by_signals(),
        tempfile.TemporaryDirectory(prefix="bench-device-") as place,
    ):
        processes = Processes(Path(place))
        try:
            attached = schedule.find_device(processes, budget)
            facts = machine.facts(attached)
            scale = Scale(
                platform=attached["platform"],
                device_kind=attached["device_kind"],
                memory=int(attached["memory"]),
                folder=place,
            )
            report(f"{facts['device']}: {len(parts)} parts in up to {minutes:g} minutes")
            results: dict[str, list[Result]] = {}
            for part, some in schedule.run(parts, scale, processes, budget):
                report(schedule.summary(part, some))
                results[part.name] = some
                run = history.record(facts, _ordered(parts, results), budget.spent, minutes)
                write_json(output, run)  # whatever happens to the next part
        finally:
            for name, ending in (("log.txt", ".log"), ("tuning.json", ".tuning.json")):
                if (Path(place) / name).exists():
                    shutil.copyfile(Path(place) / name, output.with_suffix(ending))
    return run


def _ordered(parts: list[registry.Part], results: dict[str, list[Result]]) -> list[Result]:
    """Results so far in the order of their parts, with predictions beside what was measured."""
    flat = [result for part in parts for result in results.get(part.name, ())]
    return workloads.with_predictions(flat)


def report(line: str) -> None:
    """Shows progress."""
    print(line, file=sys.stderr, flush=True)


def _add(run: dict) -> Path:
    """Adds a run to the checkout's records, makes its pages again and adopts its choices."""
    if not _in_checkout():
        raise UserError("docs/results/hardware is not here; run this in a checkout")
    path = history.append(ROOT / page.FOLDER, run)
    page.write(ROOT)
    recommendation.adopt(ROOT / TUNING, run)
    return path


def _in_checkout() -> bool:
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "docs").is_dir()
