"""The commands that use a model: evaluate, predict, fill-mask."""

import dataclasses
import typing
from pathlib import Path
from typing import Annotated

import tyro

from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Count
from modernbert_jax.train.retrieval.evaluation_config import Evaluating
from modernbert_jax.train.retrieval.search.config import BM25

from . import devices as device_limits
from . import output as printing
from .launch import CpuDevices
from .options import Dtype, Flat, RetrievalTask, TaskKind, Weights, as_option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Evaluating):
    """Evaluate a model on labelled examples, or on retrieval, and print every metric as JSON.

    Retrieval is evaluated on collections in BEIR's layout: corpus.jsonl, queries.jsonl and
    qrels/SPLIT.tsv. A folder of such folders, or of NanoBEIR, gives their means, too. Reranking
    takes files of queries with documents, or collections with candidates; sts two texts with a
    label; triplets a query, a positive and a negative. Options without a note are for these tasks.
    """

    model: str = ""
    """Checkpoint of any format, or the name of one on the hub. For retrieval also bm25; empty with
    --run-file."""
    data: str
    """Labelled examples: .jsonl, .csv, .tsv, .parquet, .arrow, or a folder of datasets; or - for
    JSON lines from standard input. For retrieval a folder."""
    task: TaskKind | RetrievalTask | None = None
    """Kind of task. None is the one that the model was fine-tuned for here."""
    option: tuple[str, ...] = ()
    """Options of a fine-tuning task, as NAME=VALUE: columns=question,passage max_length=256. The
    others are those that the model was fine-tuned with here."""
    output: Path | None = None
    """New JSON Lines file for the predictions, or for retrieval the run in TREC's format; `-` is
    stdout, and the metrics are then printed on stderr. None writes none."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Evaluate, and print the metrics."""
        if self.task in typing.get_args(RetrievalTask):
            return self._retrieval(str(self.task))
        self._check_options()
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
            self.weights,
        )
        printing.print_json(metrics, beside=self.output)

    def _retrieval(self, task: str) -> None:
        if self.option:
            raise UserError(f"--option is for fine-tuning tasks; --task {task} has own options")
        model = self.rerank if self.model in ("", BM25) else self.model
        if model:
            self.devices.expose(device_limits.for_inference(model, self.batch_tokens))
        from modernbert_jax.train.retrieval.evaluation import run as evaluation
        from modernbert_jax.train.retrieval.evaluation.table import table

        result = evaluation.evaluate(task, self.model, self.data, self, self.output)
        if missing := result.get("missing"):
            known = f"the mean is of the other {len(result['sets'])}"
            printing.print_to_stderr(f"{self.data}: has no {', '.join(missing)}; {known}")
        if missing := result.get("missing_queries"):
            counted = "count with 0" if self.complete else "are left out; --complete counts them"
            printing.print_to_stderr(f"{missing:,} judged queries are not in the run and {counted}")
        text = table(result, self.format, self.metrics)
        printing.print_beside(text, self.output)

    def _check_options(self) -> None:
        """Raise `UserError` for options of retrieval with another task."""
        if not self.model:
            raise UserError("pass --model, the model to evaluate")
        for field in dataclasses.fields(Evaluating):
            value = getattr(self, field.name)
            if field.name not in ("batch_tokens", "dtype", "weights") and value != field.default:
                tasks = ", ".join(typing.get_args(RetrievalTask))
                raise UserError(f"--{as_option(field.name)} is for --task {tasks}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Write a fine-tuned model's predictions, one JSON line per example, in order.

    Labels are not needed. Pass --data and --output, or --text for a single example.
    """

    model: str
    """Fine-tuned checkpoint of any format, or the name of one on the hub."""
    data: str | None = None
    """Examples: .jsonl, .csv, .tsv, .parquet, .arrow, or a folder of datasets; or - for JSON lines
    from standard input."""
    output: Path | None = None
    """New JSON Lines file to write; `-` is stdout."""
    text: tuple[str, ...] = ()
    """A text whose prediction is printed; of a pair both texts, such as a question and its text."""
    task: TaskKind | None = None
    """Kind of task. None is the one that the model was fine-tuned for here."""
    option: tuple[str, ...] = ()
    """Options of the task, as NAME=VALUE: columns=question,passage max_length=256. The others are
    those that the model was fine-tuned with here."""
    batch_tokens: Count = 8192
    """Tokens per batch, over all devices."""
    dtype: Dtype = "float32"
    """Type of the computation."""
    weights: Weights = "float32"
    """Type in which matrices are kept in memory; int8 has a scale for each channel."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Predict, and print how many predictions were written, or the prediction of a text."""
        if self.text:
            return self._print_prediction()
        if self.data is None or self.output is None:
            raise UserError("predict needs --data and --output, or --text")
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
            self.weights,
        )
        printing.print_beside(f"{self.output}: {count:,} predictions", self.output)

    def _print_prediction(self) -> None:
        if self.data is not None or self.output is not None:
            raise UserError("--text prints one prediction; leave out --data and --output")
        self.devices.expose(lambda devices, processes: False)
        from modernbert_jax.predictions import record_of
        from modernbert_jax.pretrained import ModernBert

        with printing.warnings_in_lines():
            bert = ModernBert.from_pretrained(self.model, dtype=self.dtype, weights=self.weights)
            task = bert.task(self.task, self.option)
            (prediction,) = bert.predictions([record_of(task, self.text)], task)
        printing.print_json(prediction)


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
