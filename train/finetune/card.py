"""Model card of a fine-tuned model: task, data, results, use and settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..tasks import Task
from . import card_code
from .config import FinetuneConfig
from .data import Data

NAME = "README.md"


def text(config: FinetuneConfig, task: Task, data: Data, result: Mapping[str, Any]) -> str:
    """Return the model card as Markdown with the hub's header.

    Args:
        config: the run.
        task: its task, with labels.
        data: its examples.
        result: an object with "best", "last" and "test" where measured, each with "metrics".
    """
    base = config.model if "/" in config.model and not Path(config.model).exists() else ""
    header = {
        "library_name": "transformers",
        "pipeline_tag": card_code.PIPELINES[task.kind],
        "tags": ["modernbert", "modernbert-jax", task.kind],
    }
    header |= {"base_model": base} if base else {}
    header |= _index(config, task, result)
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [f"# ModernBERT fine-tuned for {_what(task)}", ""]
    lines += _facts(config, task, data)
    lines += ["", "## Results", "", *_table(result), ""]
    lines += ["## Use", "", "With transformers:", ""]
    lines += ["```python", *card_code.transformers(task), "```", ""]
    lines += ["With modernbert-jax:", "", "```bash"]
    texts = "TEXT" if len(task.inputs) < 2 else "FIRST SECOND"
    if task.kind != "choice" and not any("{" in column for column in task.inputs):
        lines += [f"modernbert-jax predict --model . --text {texts}"]
    lines += ["modernbert-jax predict --model . --data new.jsonl --output predictions.jsonl"]
    lines += ["```", "", "## Training", "", *_settings(config, result), ""]
    return "\n".join(lines)


def _index(config: FinetuneConfig, task: Task, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hub's `model-index`: the metrics of the exported model on each data set."""
    results = []
    exported = result.get("exported", "best")
    for name, split, file in (
        (exported, "validation", config.validation or config.train),
        ("test", "test", config.test),
    ):
        values = result.get(name, {}).get("metrics", {})
        metrics = [{"type": k, "value": v} for k, v in values.items() if v is not None]
        if metrics and file:
            data = Path(file).name
            results.append(
                {
                    "task": {"type": card_code.PIPELINES[task.kind]},
                    "dataset": {"name": data, "type": data.split(".")[0], "split": split},
                    "metrics": metrics,
                }
            )
    name = Path(config.output).name or "model"
    return {"model-index": [{"name": name, "results": results}]} if results else {}


def _what(task: Task) -> str:
    return {
        "classification": "classification",
        "multilabel": "multi-label classification",
        "regression": "regression",
        "tokens": "token classification",
        "questions": "extractive question answering",
        "choice": "multiple choice",
    }[task.kind]


def _facts(config: FinetuneConfig, task: Task, data: Data) -> list[str]:
    counts = {"training": data.train, "validation": data.validation, "test": data.test}
    parts = (f"{len(examples):,} for {name}" for name, examples in counts.items() if examples)
    start = Path(config.model)  # the name of a run is clearer than `export`
    start = start.parent if start.name == "export" else start
    lines = [f"Started from `{start.name}`. Examples: {', '.join(parts)}.", ""]
    if task.label_names:
        lines += ["Labels: " + ", ".join(f"`{name}`" for name in task.label_names), ""]
    lines += [
        f"Input: {', '.join(f'`{c}`' for c in task.inputs)}; at most {task.max_length} tokens."
    ]
    return lines


def _table(result: Mapping[str, Any]) -> list[str]:
    measured = {
        name: result[name]["metrics"] for name in ("best", "last", "test") if name in result
    }
    if not measured:
        return ["No metrics were measured."]
    names = list(dict.fromkeys(name for metrics in measured.values() for name in metrics))
    heads = {"best": "validation, best", "last": "validation, last", "test": "test"}
    lines = ["| | " + " | ".join(heads[name] for name in measured) + " |"]
    lines += ["| --- |" + " --- |" * len(measured)]
    for name in names:
        cells = (metrics.get(name) for metrics in measured.values())
        lines.append(f"| {name} | " + " | ".join(map(_number, cells)) + " |")
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _settings(config: FinetuneConfig, result: Mapping[str, Any]) -> list[str]:
    names = (
        "epochs",
        "batch_examples",
        "learning_rate",
        "warmup",
        "schedule",
        "optimizer",
        "weight_decay",
        "attention_dropout",
        "classifier_dropout",
        "label_smoothing",
        "layer_decay",
        "seed",
    )
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {getattr(config, name)} |" for name in names]
    if config.lora.rank:
        lines.append(f"| LoRA | rank {config.lora.rank}, alpha {config.lora.alpha:g}, merged |")
    if "step" in result.get("best", {}):
        lines.append(f"| steps of the exported model | {result['best']['step']:,} |")
    return lines
