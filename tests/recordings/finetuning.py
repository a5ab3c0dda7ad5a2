"""Recorded runs of `finetune`, `sweep`, `evaluate` and `predict`."""

from typing import Any

import facts
from preparing import MIXED, MODEL, SMALL_MODEL
from pretraining import flags, last_step
from program import Program, Result

_COMMON = {
    "model": SMALL_MODEL,
    "epochs": 4,
    "batch-examples": 16,
    "learning-rate": 2e-3,
    "attention-dropout": 0.1,
    "eval-every": 1,
    "log-every": 1,
    "save-every": 4,
}
"""Twelve updates."""

_PAIR = {"task.columns": "premise hypothesis"}
_SCORE = {"task.columns": "a b", "task.label-column": "score"}
_WINDOWS = {"task.max-length": 32, "task.stride": 8}

_FREEZE = {"freeze-layers": 2, "freeze": r"mlp\.Wi", "layer-decay": 0.8}
_LORA = {"lora.rank": 4, "lora.alpha": 8, "lora.dropout": 0.1, "lora.targets": "all-linear"}
_FSDP = {"cpu-devices": 2, "mesh.data": 1, "mesh.fsdp": 2}
_ADAMW = {
    "optimizer": "adamw",
    "weight-decay": 0.01,
    "clip-norm": 1.0,
    "schedule": "cosine",
    "class-weights": "balanced",
    "label-smoothing": 0.1,
}
_DROPOUTS = {
    "init": "random",
    "embedding-dropout": 0.1,
    "mlp-dropout": 0.1,
    "classifier-dropout": 0.1,
    "pooling": "cls",
    "schedule": "one_minus_sqrt",
    "keep-best": False,
}
_PATIENCE = {"epochs": 20, "eval-every": 0.34, "patience": 2, "min-delta": 0.05}
_SMALL = {"microbatch-tokens": 128, "pooling": "max", "schedule": "constant"}

RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # One of every kind.
    "classification": ("classification", "classification", {"model": MODEL}),
    "pairs": ("classification", "pairs", {**_PAIR, "label-smoothing": 0.1}),
    "multilabel": ("multilabel", "multilabel", {"class-weights": "balanced"}),
    "regression": ("regression", "regression", {**_SCORE, **_SMALL}),
    "tokens": ("tokens", "tokens", {**_WINDOWS, "class-weights": "balanced"}),
    "questions": ("questions", "questions", {**_WINDOWS, "task.no-answer": True}),
    "choice": ("choice", "choice", {}),
    # What is trained, and how.
    "lora": ("classification", "classification", {"model": MODEL, **_LORA}),
    "lora-normal": ("tokens", "tokens", {"lora.rank": 2, "lora.init": "normal"}),
    "frozen": ("classification", "classification", {"model": MODEL, **_FREEZE}),
    "adamw": ("classification", "classification", _ADAMW),
    "dropouts": ("classification", "pairs", {**_PAIR, **_DROPOUTS}),
    "patience": ("classification", "classification", {**_PATIENCE, "spike-deviations": 3.0}),
    "bfloat16": ("choice", "choice", {"runtime.dtype": "bfloat16", "runtime.remat": "dots"}),
    "data-2": ("tokens", "tokens", {"cpu-devices": 2}),
    "fsdp-2": ("classification", "classification", {"model": MODEL, **_FSDP}),
}
"""A preset, the examples and the options of every run, by name."""

EVALUATED = (
    "classification",
    "pairs",
    "multilabel",
    "regression",
    "tokens",
    "questions",
    "choice",
    "lora",
)

_GRID = ("--grid.learning-rate", "1e-3", "3e-3", "--grid.seed", "1", "2")


def record(program: Program) -> dict[str, Any]:
    """All runs, outputs of `evaluate` and `predict` with their models, and special starts."""
    results = {}
    for name, (preset, examples, options) in RUNS.items():
        results[name] = _finetune(program, name, preset, examples, options)
    evaluated = _evaluated(program)
    for name in EVALUATED:
        results[name] |= evaluated[name]
    results["split"] = _without_validation(program)
    results["killed"] = _killed(program)
    results["killed"]["same"] = {
        key: results["killed"][key] == results["classification"][key]
        for key in ("rows", "result", "export", "predictions", "tokenizer", "names")
    }
    results["intermediate"] = _intermediate(program)
    results["from-finetuned"] = _finetune(
        program, "from-finetuned", "classification", "pairs",
        {**_PAIR, "model": "finetuned/pairs/export", "epochs": 1},
    )  # fmt: skip
    results["checkpoint"] = _of_checkpoint(program)
    results["refused"] = _refused(program)
    return results


def _arguments(output: str, preset: str, examples: str, options: dict[str, Any]) -> list[str]:
    files = {
        "train": f"labelled/{examples}-train.jsonl",
        "validation": f"labelled/{examples}-validation.jsonl",
        "output": f"finetuned/{output}",
    }
    return [preset, *flags({**_COMMON, **files, **options})]


def _finetune(
    program: Program, name: str, preset: str, examples: str, options: dict[str, Any]
) -> dict[str, Any]:
    return _facts(
        program, name, program.run("finetune", *_arguments(name, preset, examples, options))
    )


def _facts(program: Program, name: str, result: Result) -> dict[str, Any]:
    return {"exit": result.code, **facts.run(program.folder / "finetuned" / name)}


def _evaluated(program: Program) -> dict[str, dict[str, Any]]:
    """Outputs of `evaluate` and `predict`, by run."""
    calls = []
    for name in EVALUATED:
        kind, examples, _ = RUNS[name]
        model, new = ["--model", f"finetuned/{name}/export"], f"labelled/{examples}-new.jsonl"
        calls += [
            ["evaluate", *model, "--task", kind, "--data", new],
            ["predict", *model, "--data", new, "--output", f"predicted/{name}.jsonl"],
        ]
    results = program.run_together(calls)
    return {
        name: {
            "evaluate": {"exit": evaluated.code, "metrics": facts.printed(evaluated.stdout)},
            "predict": {
                "exit": predicted.code,
                "lines": facts.read_lines(program.folder / f"predicted/{name}.jsonl"),
            },
        }
        for name, evaluated, predicted in zip(EVALUATED, results[::2], results[1::2], strict=True)
    }


def _without_validation(program: Program) -> dict[str, Any]:
    """A run whose validation examples are split from the training examples, with a test file."""
    options = {
        "validation": "",
        "validation-split": 0.25,
        "test": "labelled/classification-new.jsonl",
    }
    return _finetune(program, "split", "classification", "classification", options)


def _killed(program: Program) -> dict[str, Any]:
    """The first run, killed after its first checkpoint, and resumed."""
    arguments = ["finetune", *_arguments("killed", *RUNS["classification"])]
    folder = program.folder / "finetuned/killed"

    def is_behind() -> bool:
        return (folder / "checkpoints/4").is_dir() and last_step(folder) > 4

    killed = program.run_killed(is_behind, *arguments)
    resumed = _facts(program, "killed", program.run(*arguments))
    return {"code": killed.code, **resumed}


def _intermediate(program: Program) -> dict[str, Any]:
    """A recipe that starts from the model of another recipe, which is run before."""
    options = {
        **_PAIR,
        "task.labels": "entailment neutral",
        "runtime.dtype": "float32",
        "intermediate.train": "labelled/pairs-train.jsonl",
        "intermediate.validation": "labelled/pairs-validation.jsonl",
        "intermediate.output": "finetuned/first",
    }
    then = _finetune(program, "intermediate", "rte", "pairs", options)
    return {**then, "first": facts.run(program.folder / "finetuned/first")}


def _of_checkpoint(program: Program) -> dict[str, Any]:
    """A fine-tuning checkpoint, converted."""
    source = "finetuned/classification/checkpoints/12"
    result = program.run("convert", source, "finetuned/converted")
    return {"exit": result.code, "model": facts.model(program.folder / "finetuned/converted")}


def _refused(program: Program) -> dict[str, Any]:
    """Exit codes of wrong input, and of a finished run that is started again."""
    preset, examples, options = RUNS["classification"]
    of = preset, examples
    calls = {
        "again": _arguments("classification", *of, options),
        "other seed": _arguments("classification", *of, {**options, "seed": 3}),
        "unknown option": [*_arguments("refused", *of, {}), "--no-such-option", "1"],
        "no such model": _arguments("refused", *of, {"model": "nowhere/at-all/x"}),
        "not a run": _arguments("../" + MIXED, *of, {}),
    }
    return {name: program.run("finetune", *words, fails=True).code for name, words in calls.items()}


def record_sweep(program: Program) -> dict[str, Any]:
    """A grid of two learning rates and two seeds, and the same grid with another epoch."""
    folder = program.folder / "finetuned/sweep"
    words = _arguments("sweep", "classification", "classification", {"epochs": 2})
    result = program.run("sweep", *words, *_GRID, "--keep-models", "all")
    runs = sorted(path.name for path in (folder / "runs").glob("*"))
    return {
        "sweep": {
            "exit": result.code,
            "table": facts.read_json(folder / "sweep.json"),
            "text": (folder / "sweep.txt").read_text() if result.code == 0 else None,
            "names": facts.names(folder),
        },
        **{f"sweep/{name}": facts.run(folder / "runs" / name) for name in runs},
    }
