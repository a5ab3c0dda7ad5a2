"""Model card of a fine-tuned model: task, data, results, use and settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..examples import card
from ..tasks import Task
from . import card_code
from .config import FinetuneConfig
from .data import Data

_SETTINGS = (*card.SETTINGS, "classifier_dropout", "label_smoothing")


def text(config: FinetuneConfig, task: Task, data: Data, result: Mapping[str, Any]) -> str:
    """Return the model card as Markdown with the hub's header.

    Args:
        config: the run.
        task: its task, with labels.
        data: its examples.
        result: an object with "best", "last" and "test" where measured, each with "metrics".
    """
    header = {
        "library_name": "transformers",
        "pipeline_tag": card_code.PIPELINES[task.kind],
        "tags": ["modernbert", "modernbert-jax", task.kind],
    }
    header |= _index(config, task, result)
    lines = [*card.header(header, config.model), f"# ModernBERT fine-tuned for {_what(task)}", ""]
    lines += _facts(config, task, data)
    lines += ["", "## Results", "", *card.table(result), ""]
    lines += ["## Use", "", "With transformers:", ""]
    lines += ["```python", *card_code.transformers(task), "```", ""]
    lines += ["With modernbert-jax:", "", "```bash"]
    texts = "TEXT" if len(task.inputs) < 2 else "FIRST SECOND"
    if task.kind != "choice" and not any("{" in column for column in task.inputs):
        lines += [f"modernbert-jax predict --model . --text {texts}"]
    lines += ["modernbert-jax predict --model . --data new.jsonl --output predictions.jsonl"]
    lines += ["```", "", "## Training", "", *card.settings(config, _SETTINGS, result), ""]
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
    lines = [f"Started from `{card.start(config.model)}`. Examples: {', '.join(parts)}.", ""]
    if task.label_names:
        lines += ["Labels: " + ", ".join(f"`{name}`" for name in task.label_names), ""]
    lines += [
        f"Input: {', '.join(f'`{c}`' for c in task.inputs)}; at most {task.max_length} tokens."
    ]
    return lines
