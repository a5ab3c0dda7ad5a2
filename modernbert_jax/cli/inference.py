"""The commands that use a model: evaluate, predict, fill-mask."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from modernbert_jax.ranges import Count

from . import devices as device_limits
from . import output as printing
from .launch import CpuDevices
from .options import Dtype, Flat, TaskKind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a fine-tuned model on labelled examples, and print every metric as JSON."""

    model: str
    """Fine-tuned checkpoint of any format, or the name of one on the hub."""
    data: str
    """Labelled examples: .jsonl, .csv, .tsv, .parquet, .arrow, or a folder of datasets; or - for
    JSON lines from standard input."""
    task: TaskKind | None = None
    """Kind of task. None is the one that the model was fine-tuned for here."""
    option: tuple[str, ...] = ()
    """Options of the task, as NAME=VALUE: columns=question,passage max_length=256. The others are
    those that the model was fine-tuned with here."""
    output: Path | None = None
    """New JSON Lines file for the predictions; `-` is stdout, and the metrics are then printed on
    stderr. None writes none."""
    batch_tokens: Count = 8192
    """Tokens per batch, over all devices."""
    dtype: Dtype = "float32"
    """Type of the computation."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Evaluate, and print the metrics."""
        self.devices.expose(device_limits.for_inference(self.model, self.batch_tokens))
        from modernbert_jax.train.finetune import evaluation

        metrics = evaluation.evaluate(
            self.model,
            self.data,
            self.task,
            self.option,
            self.output,
            self.batch_tokens,
            self.dtype,
        )
        printing.print_json(metrics, beside=self.output)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Write a fine-tuned model's predictions, one JSON line per example, in order.

    Labels are not needed.
    """

    model: str
    """Fine-tuned checkpoint of any format, or the name of one on the hub."""
    data: str
    """Examples: .jsonl, .csv, .tsv, .parquet, .arrow, or a folder of datasets; or - for JSON lines
    from standard input."""
    output: Path
    """New JSON Lines file to write; `-` is stdout."""
    task: TaskKind | None = None
    """Kind of task. None is the one that the model was fine-tuned for here."""
    option: tuple[str, ...] = ()
    """Options of the task, as NAME=VALUE: columns=question,passage max_length=256. The others are
    those that the model was fine-tuned with here."""
    batch_tokens: Count = 8192
    """Tokens per batch, over all devices."""
    dtype: Dtype = "float32"
    """Type of the computation."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Predict, and print how many predictions were written."""
        self.devices.expose(device_limits.for_inference(self.model, self.batch_tokens))
        from modernbert_jax.train.finetune import evaluation

        count = evaluation.predict(
            self.model,
            self.data,
            self.output,
            self.task,
            self.option,
            self.batch_tokens,
            self.dtype,
        )
        printing.print_beside(f"{self.output}: {count:,} predictions", self.output)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FillMask:
    """Fill every [MASK] of a text: a line per mask, with the likeliest tokens."""

    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """Text with one or more [MASK]."""
    model: str
    """Checkpoint directory of any format, or the name of a model on the hub."""
    top_k: Count = 5
    """Number of tokens per mask."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Print the tokens of every mask with their probabilities."""
        # One text is one row, which one device computes on all cores.
        self.devices.expose(lambda devices, processes: False)
        from modernbert_jax.pretrained import ModernBert

        with printing.warnings_in_lines():
            bert = ModernBert.from_pretrained(self.model)
            masks = bert.fill_mask(self.text, top_k=self.top_k)
        for candidates in masks:
            print("  ".join(f"{token!r} {share:.3f}" for token, share in candidates))
