"""Recorded runs of `pretrain`, and what is made of their checkpoints."""

import json
from pathlib import Path
from typing import Any

import facts
import inputs
from preparing import MIXED, MODEL, OTHER_WORDS, SMALL_MODEL
from program import Program

WHOLE = "pretrained/whole"

_MODEL = {
    "model.vocab-size": inputs.VOCABULARY,
    "model.hidden-size": inputs.WIDTH,
    "model.intermediate-size": inputs.UNITS,
    "model.num-hidden-layers": inputs.LAYERS,
    "model.num-attention-heads": inputs.HEADS,
    "model.local-attention": inputs.WINDOW,
    "model.pad-token-id": "None",
    "model.embedding-dropout": 0.05,
    "model.mlp-dropout": 0.05,
    "attention-dropout": 0.1,
}

_EVERY = {"log-every": 1, "eval-every": 5, "eval-rows": 8, "save-every": 4, "keep": 2}


def _stage(number: int, length: int, rows: int, tokens: int, **options: Any) -> dict[str, Any]:
    values = {"length": length, "rows": rows, "tokens": tokens, **options}
    return {f"stages.{number}.{name.replace('_', '-')}": x for name, x in values.items()}


_THREE_STAGES = {
    "data": MIXED,
    **_MODEL,
    **_EVERY,
    # Batches of 2 rows, then of 4 in two microbatches; the learning rate rises.
    **_stage(0, 64, 4, 64 * 36, microbatch_rows=2, warmup_tokens=64 * 8),
    "stages.0.batch-warmup-rows": 2,
    "stages.0.batch-warmup-tokens": 64 * 12,
    "stages.0.global-rope-theta": 10_000.0,
    # Longer rows with the model's theta, another mixture, and the masking of the research code.
    **_stage(1, 128, 2, 128 * 8, warmup_tokens=0, weight_decay=1e-3, mask_rate=0.2),
    "stages.1.mixture": "prose 1.0 code 3.0",
    "stages.1.legacy-masking": True,
    # The learning rate falls.
    **_stage(2, 128, 4, 128 * 20, microbatch_rows=2, decay_tokens=128 * 16, warmup_tokens=0),
    "stages.2.shuffle-seed": 5,
}

_ONE_STAGE = {
    "init-from": SMALL_MODEL,
    "data": MIXED,
    "log-every": 1,
    "eval-every": 4,
    "eval-rows": 4,
    "save-every": 100,
    **_stage(0, 64, 4, 64 * 24, microbatch_rows=2, warmup_tokens=64 * 4, decay_tokens=64 * 8),
}
"""A short run of a preset with one stage, from a checkpoint."""

_LARGER = {
    "init-model": "tiled",
    **{name: x for name, x in _MODEL.items() if "dropout" not in name},
    "model.hidden-size": 96,
    "model.intermediate-size": 144,
}

_FLOAT32 = {"runtime.dtype": "float32", "runtime.remat": "none"}
_MATCHED = {**_FLOAT32, "init-vocabulary": "matched", "data": OTHER_WORDS}
_TWO_DEVICES = {**_FLOAT32, "init-from": MODEL, "cpu-devices": 2}
_FOUR_DEVICES = {**_FLOAT32, "init-from": MODEL, "cpu-devices": 4}
_UNROLLED = {"runtime.remat": "full", "runtime.scan-layers": False}

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "whole": ("nano", _THREE_STAGES),
    "data-2": ("continue", {**_ONE_STAGE, **_TWO_DEVICES, "mesh.data": 2}),
    "fsdp-2-tensor-2": (
        "continue",
        {**_ONE_STAGE, **_FOUR_DEVICES, "mesh.fsdp": 2, "mesh.tensor": 2},
    ),
    "context-2": (
        "continue",
        {**_ONE_STAGE, **_TWO_DEVICES, "init-from": SMALL_MODEL, "mesh.context": 2},
    ),
    "adopted-bfloat16": ("continue", _ONE_STAGE),
    "unrolled": ("continue", {**_ONE_STAGE, **_UNROLLED, "init-from": MODEL, "seed": 5}),
    "tiled-middle": ("continue", {**_ONE_STAGE, **_LARGER}),
    "tiled-center": ("continue", {**_ONE_STAGE, **_LARGER, "init-tiling": "center"}),
    "matched-vocabulary": ("continue", {**_ONE_STAGE, **_MATCHED}),
}
"""A preset and its options, by name of the run."""


def record(program: Program) -> dict[str, Any]:
    """All runs; the first one also killed, run again, refused, converted and averaged."""
    results = {name: _pretrain(program, name, *run) for name, run in RUNS.items()}
    results["killed"] = _killed(program)
    results["again"] = {
        name: program.run(*words, fails=True).code for name, words in _again().items()
    }
    rows = facts.read_lines(program.folder / WHOLE / "metrics.jsonl")
    results["again"]["unchanged"] = rows == results["whole"]["rows"]
    results["killed"]["same"] = {
        key: results["killed"][key] == results["whole"][key]
        for key in ("rows", "export", "tokenizer", "names")
    }
    if kept := _checkpoints(program):
        options = {**_ONE_STAGE, "init-from": kept[0]}
        results["from-checkpoint"] = _pretrain(program, "from-checkpoint", "continue", options)
        results["checkpoints"] = _of_checkpoints(program, kept)
    results["dry runs"] = _dry_runs(program)
    return results


def _pretrain(program: Program, name: str, preset: str, options: dict[str, Any]) -> dict[str, Any]:
    result = program.run(*_arguments(name, preset, options))
    return {"exit": result.code, **facts.run(program.folder / "pretrained" / name)}


def _arguments(name: str, preset: str, options: dict[str, Any]) -> list[str]:
    return ["pretrain", preset, "--output", f"pretrained/{name}", *flags(options)]


def _again() -> dict[str, list[str]]:
    """The first run started again when it is finished: as it was, and otherwise."""
    changes: dict[str, dict[str, Any]] = {
        "same command": {},
        "other seed": {"seed": 18},
        "more checkpoints kept": {"keep": 5},
    }
    return {
        name: _arguments("whole", "nano", {**_THREE_STAGES, **change})
        for name, change in changes.items()
    }


def flags(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line; truth values as `--name` and `--no-name`."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            group, _, last = name.rpartition(".")
            words.append(f"--{name}" if value else f"--{group}.no-{last}".replace("--.", "--"))
        else:
            words += [f"--{name}", *(str(value).split() or [""])]
    return words


def _killed(program: Program) -> dict[str, Any]:
    """The first run, killed after a checkpoint of its first and its last stage, and resumed."""
    folder = program.folder / "pretrained/killed"
    words = _arguments("killed", *RUNS["whole"])
    codes = [
        program.run_killed(lambda step=step: _is_behind(folder, step), *words).code
        for step in (4, 16)
    ]
    return {"codes": codes, **_pretrain(program, "killed", *RUNS["whole"])}


def _is_behind(folder: Path, step: int) -> bool:
    """Whether a checkpoint was saved at a step and later steps were logged."""
    return (folder / "checkpoints" / str(step)).is_dir() and last_step(folder) > step


def last_step(folder: Path) -> int:
    """The last step in a run's metrics; -1 where there is none."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    try:
        return max((json.loads(line)["step"] for line in lines), default=-1)
    except ValueError:  # the last line is being written
        return -1


def _checkpoints(program: Program) -> list[str]:
    """The checkpoints that the first run has kept, oldest first."""
    steps = (int(path.name) for path in (program.folder / WHOLE / "checkpoints").glob("[0-9]*"))
    return [f"{WHOLE}/checkpoints/{step}" for step in sorted(steps)]


def _of_checkpoints(program: Program, kept: list[str]) -> dict[str, Any]:
    """Outputs of `convert`, `average`, `inspect` and `report` for the first run."""
    results = program.run_together(
        [
            ["convert", kept[-1], "pretrained/converted"],
            ["average", *kept[-2:], "--output", "pretrained/averaged"],
            ["inspect", kept[-1], "--json"],
            ["report", WHOLE, "pretrained/matched-vocabulary", "--output", "pretrained/curves"],
        ]
    )
    return {
        "exit": [result.code for result in results],
        "converted": facts.model(program.folder / "pretrained/converted"),
        "averaged": facts.model(program.folder / "pretrained/averaged"),
        "inspect": facts.printed(results[2].stdout),
        "report": sorted(path.name for path in program.folder.glob("pretrained/curves.*")),
    }


def _dry_runs(program: Program) -> dict[str, Any]:
    presets = ("nano", "base", "large", "ettin-17m", "ettin-1b", "continue", "new-language")
    calls = [
        ["pretrain", preset, "--dry-run", "--json", "--plot", f"plans/{preset}.png"]
        for preset in presets
    ]
    results = program.run_together(calls)
    return {
        preset: {"exit": result.code, "plan": facts.printed(result.stdout)}
        for preset, result in zip(presets, results, strict=True)
    }
