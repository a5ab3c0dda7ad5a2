"""The commands: the name of each, what it does, and where it is."""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from modernbert_jax.configs import Kind
from modernbert_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the program.

    Its options are the fields of a frozen dataclass, which has a method `run() -> int | None` that
    returns the exit code. The dataclass is imported when the command is called.
    """

    options: str
    """The dataclass, as MODULE.CLASS below this package."""
    summary: str
    """Summary of the command, in one line."""
    config: Kind | None = None
    """Kind of run that the command is passed first, as CONFIG, followed by changes of its fields;
    the configuration is the argument of `run`."""

    def load(self) -> Any:
        """The dataclass of the options."""
        module, _, name = self.options.partition(".")
        return getattr(importlib.import_module(f"{__package__}.{module}"), name)


COMMANDS: dict[str, Command] = {
    "quickstart": Command(
        "quickstart.Quickstart", "Train a small model in four minutes, from nothing, and try it."
    ),
    "convert": Command("checkpoints.Convert", "Convert a checkpoint from one format into another."),
    "verify": Command("checkpoints.Verify", "Compare two checkpoints of any formats."),
    "inspect": Command("checkpoints.Inspect", "Show what a checkpoint holds."),
    "average": Command("checkpoints.Average", "Average the weights of several checkpoints."),
    "tokenizer train": Command("corpus.TrainTokenizer", "Train a tokenizer on text."),
    "prepare": Command("corpus.Prepare", "Turn text into packed rows for pretraining."),
    "data": Command("corpus.Data", "Show what prepared data hold."),
    "plan": Command(
        "plan.Plan", "Compile the training step for a machine that is not attached.", "pretrain"
    ),
    "pretrain": Command("pretrain.Pretrain", "Pretrain a model, or resume.", "pretrain"),
    "finetune": Command("finetune.Finetune", "Fine-tune a model, or resume.", "finetune"),
    "sweep": Command("finetune.Sweep", "Fine-tune over a grid of hyperparameters.", "finetune"),
    "evaluate": Command("inference.Evaluate", "Evaluate a model, also on retrieval."),
    "predict": Command("inference.Predict", "Write a fine-tuned model's predictions."),
    "mine": Command("retrieval.Mine", "Mine hard negatives for training retrieval models."),
    "search": Command("retrieval.Search", "Find the best documents of every query."),
    "export": Command("export.Export", "Export a model as programs that run with jax alone."),
    "embed": Command("embed.Embed", "Turn texts into vectors, in shards, on any number of hosts."),
    "fill-mask": Command("inference.FillMask", "Fill every [MASK] of a text."),
    "serve": Command("serve.Serve", "Serve a model over HTTP, with packed batches."),
    "report": Command("report.Report", "Draw the curves of training runs."),
    "bench": Command("bench.Bench", "Measure speed beside a peer in the same run."),
    "bench device": Command("bench.Device", "Check and time everything on this device."),
    "bench efficiency": Command(
        "bench_efficiency.Efficiency", "Measure encoding as in the paper, beside transformers."
    ),
    "bench finetune": Command(
        "bench.Finetune", "Compare fine-tuning with transformers' Trainer.", "finetune"
    ),
    "bench kernels": Command(
        "bench.Kernels", "Time every implementation of attention on this device."
    ),
    "bench retrieval": Command(
        "bench_retrieval.Retrieval", "Compare training for retrieval with sentence-transformers."
    ),
    "bench serve": Command("bench_serve.Serve", "Load servers with the same requests."),
    "bench retrieval-data": Command(
        "bench_retrieval.RetrievalData", "Make a data set for bench retrieval from text."
    ),
}


def find(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of a command, and the words after it. Raises `UserError`."""
    count = 2 if " ".join(words[:2]) in COMMANDS else 1
    name = " ".join(words[:count])
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}; {did_you_mean(name, COMMANDS)}")
    return name, words[count:]


def overview() -> str:
    """The commands in lines, for `--help`."""
    width = max(map(len, COMMANDS)) + 1
    return "\n".join(
        [
            "usage: modernbert-jax COMMAND ...    (COMMAND --help shows its options)",
            "",
            *(f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()),
            "",
            "--debug shows the traceback of an error. Exit codes: 0 done, 2 wrong input, 1 other.",
        ]
    )
