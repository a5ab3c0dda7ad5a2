"""The commands that fine-tune: finetune, sweep."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Count, Length, Natural
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.finetune.grid import Grid
from modernbert_jax.train.retrieval.config import RetrievalConfig

from . import devices, output
from .dry_run import DryRun
from .launch import Launch
from .options import Flat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune a model on labelled examples, or on texts that belong together.

    Interrupt it at any time, even with `kill -9`; the same command in the same folder resumes. Any
    field of CONFIG can be changed by an option of its name.
    """

    dry: Flat[DryRun] = dataclasses.field(default_factory=DryRun)
    examples: Count | None = None
    """Training examples of a dry run without data; None is the number that CONFIG reads."""
    text_tokens: tuple[Length, Length] = (16, 128)
    """Mean tokens of a query and of a document in a dry run without data."""
    list_documents: Natural = 0
    """Documents of an example in a dry run without data; 0 is those of the recipe's columns, or
    one."""
    profile_steps: str = ""
    """Steps to profile, as FIRST:LAST, into profile/ in the run's folder."""
    launch: tyro.conf.OmitArgPrefixes[Launch] = dataclasses.field(default_factory=Launch)

    def run(self, config: FinetuneConfig | RetrievalConfig) -> None:
        """Train, and print the result; or print the dry run."""
        if self.dry.dry_run:
            self._plan(config)
            return
        self.launch.join(devices.for_finetuning(config))

        import jax

        from modernbert_jax.train import intermediate
        from modernbert_jax.train.engine.profile import Profiler
        from modernbert_jax.train.examples import report
        from modernbert_jax.train.retrieval import training

        profiled = Profiler.parse(self.profile_steps) if self.profile_steps else None
        with output.attention_choices():
            if isinstance(config, RetrievalConfig):
                result = training.train(config, profiled)
            else:
                result = intermediate.finetune(config, profiled)
        if jax.process_index():
            return
        if result is None:
            output.print_stopped(config.output, "finetune")
        else:
            print(report.text(result))
            output.print_finished(config.output)

    def _plan(self, config: FinetuneConfig | RetrievalConfig) -> None:
        from modernbert_jax.train.retrieval import dry_run

        if not isinstance(config, RetrievalConfig):
            raise UserError("--dry-run is for pretraining and retrieval")
        if config.train:
            sizes = dry_run.measure(config)
        elif examples := self.examples or config.train_examples:
            sizes = dry_run.assumed(config, examples, self.text_tokens, self.list_documents)
        else:
            raise UserError("--dry-run needs the data, --train FILE..., or its size, --examples N")
        machine = self.dry.machine()
        facts = dry_run.plan(config, machine, sizes)
        if self.dry.json:
            output.print_json(facts)
        else:
            print(dry_run.text(config, machine, facts))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Fine-tune with every combination of a grid in one process, compiled once.

    Writes sweep.json, sweep.txt and sweep.png into --output, and each run into runs/. The same
    command in the same folder resumes; finished runs are not repeated.
    """

    grid: Grid = dataclasses.field(default_factory=Grid)
    """Hyperparameters in which the runs differ. Every combination is one run."""
    keep_models: Literal["best", "all"] = "best"
    """Keep models and checkpoints of all runs, or only the model of the best run."""
    launch: tyro.conf.OmitArgPrefixes[Launch] = dataclasses.field(default_factory=Launch)

    def run(self, config: FinetuneConfig | RetrievalConfig) -> None:
        """Train all runs, and print their table."""
        config = labelled(config, "sweep")
        self.launch.join(devices.for_finetuning(config))

        import jax

        from modernbert_jax.train import intermediate
        from modernbert_jax.train.finetune import sweep, sweep_table

        sweep.check(config, self.grid)
        following = intermediate.prepared(config)
        table = None
        if following is not None:
            table = sweep.sweep(following, self.grid, self.keep_models)
        if jax.process_index():
            return
        if table is None:
            output.print_stopped(Path(config.output), "sweep")
            return
        folder, export = Path(config.output), Path(table["best_run"]) / "export"
        best = f"; the best model is in {export}" if export.is_dir() else ""
        print(sweep_table.text(table))
        print(f"\n{folder}: {table['runs']} runs; tables in {folder}/sweep.*{best}")


def labelled(config: FinetuneConfig | RetrievalConfig, command: str) -> FinetuneConfig:
    """The configuration, if it is of a task with labels. Raises `UserError`."""
    if isinstance(config, FinetuneConfig):
        return config
    raise UserError(f"{command} is for tasks with labels, not for {config.kind}; use finetune")
