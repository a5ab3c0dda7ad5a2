"""The commands of fine-tuning: train, measure, predict."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from modernbert_jax.io.host_memory import keep_freed_on_cpu

from ..pretrain.command import choices_shown
from . import presets
from .config import FinetuneConfig

Kind = Literal["classification", "multilabel", "regression", "tokens", "questions", "choice"]


def finetune(args: Sequence[str], parse: Callable[..., Any]) -> int:
    """Fine-tunes a model, or goes on with it: finetune CONFIG [--field.path value ...].

    CONFIG is a kind of task, the name of a preset, a Python file with config(), or a run's
    config.json. Any field can be changed behind it. The same command in the same folder resumes.
    """
    default, kind, args = presets.first("finetune", args)

    def arguments(
        config: kind = default,
        coordinator: str = "",
        processes: int = 0,
        process: int = -1,
        cpu_devices: int = 1,
    ) -> dict[str, Any]:
        """Fine-tunes a model, or goes on with it; the same command in the same folder resumes.

        Args:
            config: The run.
            coordinator: host:port of process 0, where no launcher tells: TPU pods, Slurm and Open
                MPI do.
            processes: How many processes there are, with coordinator.
            process: Which one this is, from 0, with coordinator.
            cpu_devices: Devices that a CPU poses as; training is faster with one for each core.
        """
        return locals()

    given = parse(arguments, "finetune CONFIG", args)
    config = given.pop("config")

    from ..engine.distributed import Launch

    Launch.taken_from(given).join()

    import jax

    from . import training

    with choices_shown():
        result = training.finetune(config)
    if jax.process_index() == 0:
        _say(config, result)
    return 0


def _say(config: FinetuneConfig, result: dict[str, Any] | None) -> None:
    if result is None:
        print(
            f"{config.output}: stopped, checkpoint saved; run the same finetune command to resume"
        )
        return
    from . import report

    print(report.text(result))
    print(f"{config.output}: finished; the model lies in {Path(config.output) / 'export'}")


def evaluate(
    model: str,
    data: str,
    task: Kind | None = None,
    option: tuple[str, ...] = (),
    output: Path | None = None,
    batch_tokens: int = 8192,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Measures a fine-tuned model on labelled examples.

    Prints every metric of the task as JSON.

    Args:
        model: Fine-tuned checkpoint of any format, or the name of one on the hub.
        data: Labelled examples: .jsonl, .csv, .tsv, .parquet, .arrow, or a folder of datasets.
        task: What the model does. By default what it was fine-tuned for here.
        option: Options of the task, as NAME=VALUE: columns=question,passage max_length=256. By
            default those that it was fine-tuned with here.
        output: JSON lines file of predictions to write, too.
        batch_tokens: Tokens that are computed at once.
        dtype: Type of the computation.
    """
    from . import evaluation

    keep_freed_on_cpu()
    found = evaluation.evaluate(model, data, task, option, output, batch_tokens, dtype)
    print(json.dumps(found, indent=2))


def predict(
    model: str,
    data: str,
    output: Path,
    task: Kind | None = None,
    option: tuple[str, ...] = (),
    batch_tokens: int = 8192,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Writes what a fine-tuned model says.

    One JSON line for each example, in order; labels are not needed.

    Args:
        model: Fine-tuned checkpoint of any format, or the name of one on the hub.
        data: Examples: .jsonl, .csv, .tsv, .parquet, .arrow, or a folder of datasets.
        output: JSON lines file to write.
        task: What the model does. By default what it was fine-tuned for here.
        option: Options of the task, as NAME=VALUE: columns=question,passage max_length=256. By
            default those that it was fine-tuned with here.
        batch_tokens: Tokens that are computed at once.
        dtype: Type of the computation.
    """
    from . import evaluation

    keep_freed_on_cpu()
    count = evaluation.predict(model, data, output, task, option, batch_tokens, dtype)
    print(f"{output}: {count:,} predictions")
