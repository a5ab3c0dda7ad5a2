"""The commands that measure speed: bench, bench device, bench finetune, bench kernels."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from modernbert_jax.io import outputs
from modernbert_jax.io.files import write_json
from modernbert_jax.ranges import Count, Length, Positive, Seed

from . import devices as device_limits
from . import output as printing
from .launch import CpuDevices
from .options import Flat

if TYPE_CHECKING:
    from modernbert_jax.train.finetune.config import FinetuneConfig
    from modernbert_jax.train.retrieval.config import RetrievalConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure speed beside a peer that does the same work in the same run."""

    suites: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SUITE...")]
    """Suites to run: data, encode, embed, train."""
    input: tuple[str, ...] = ()
    """Files or globs of text. Without it: the sources of Python's standard library."""
    tokenizer: Path | None = None
    """Directory with tokenizer.json. None trains one on the text."""
    megabytes: Positive = 12.0
    """Largest amount of text, in megabytes (10^6 bytes)."""
    repeats: Count = 3
    """Repetitions of each side, of which the best counts."""
    texts: Count = 20_000
    """Texts of the suite embed with the small encoder; its base model gets a fortieth of them."""
    models: tuple[str, ...] = ()
    """Models of the suite embed: small, base. Without it: both."""
    json: Path | None = None
    """JSON file for the numbers; an existing one is replaced."""

    def run(self) -> None:
        """Measure, and print a table per suite."""
        from modernbert_jax.train import bench

        if self.json is not None:
            outputs.check_file(self.json, self.input, replaces=".json")
        options = bench.Options(
            input=self.input,
            tokenizer=self.tokenizer,
            megabytes=self.megabytes,
            repeats=self.repeats,
            texts=self.texts,
            models=self.models,
        )
        results = bench.run(self.suites, options)
        if self.json is not None:
            write_json(self.json, list(bench.rows(results)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernels:
    """Time every implementation of attention on this device, and recommend one."""

    length: tuple[Length, ...] = ()
    """Row lengths in tokens. Without it: 512 to 8192, on a CPU to 1024."""
    tokens: Count | None = None
    """Tokens per call. None is 16384, on a CPU 1024."""
    heads: Count = 12
    """Attention heads of a layer."""
    head_dim: Count = 64
    """Width of a head."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the inputs. None is bfloat16, on a CPU float32."""
    repeats: Count = 7
    """Timed calls, of which the median counts."""
    sweep: bool = True
    """Try block sizes of our kernels first."""
    output: Path | None = None
    """Tuning file to write; an existing JSON file is replaced. The environment variable
    MODERNBERT_JAX_TUNING passes it to other commands. None prints it."""

    def run(self) -> None:
        """Measure, and print or write the recommendation."""
        from modernbert_jax.train.bench import kernels

        changes: dict[str, Any] = {
            "lengths": self.length or None,
            "tokens": self.tokens,
            "dtype": self.dtype,
        }
        shape = dataclasses.replace(
            kernels.default_shape(),
            heads=self.heads,
            head_dim=self.head_dim,
            **{name: value for name, value in changes.items() if value is not None},
        )
        if self.output is not None:
            outputs.check_file(self.output, replaces=".json")
        times = kernels.measure(shape, self.repeats, self.sweep, printing.print_to_stderr)
        kernels.show(times)
        table = kernels.recommend(times, shape)
        if self.output is None:
            printing.print_json(table)
        else:
            write_json(self.output, table)
            print(f"{self.output}: written; use it with MODERNBERT_JAX_TUNING={self.output}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune beside transformers' Trainer, random weights and a bag of words.

    All sides have the Trainer's settings: AdamW, linear decay, gradient clipping, no dropout. They
    are compared on the examples of --validation.
    """

    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds, one repetition for each. The bag of words has none, and one repetition."""
    sides: tuple[str, ...] = ("ours", "random", "words", "trainer")
    """Sides to compare."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)
    json: Path | None = None
    """JSON file for the numbers; an existing one is replaced."""

    def run(self, config: "FinetuneConfig | RetrievalConfig") -> None:
        """Train all sides, and print their table."""
        from .finetune import labelled

        config = labelled(config, "bench finetune")
        self.devices.expose(device_limits.for_finetuning(config))
        from modernbert_jax.train.bench import finetune as suite

        if self.json is not None:
            inputs = [config.train, config.validation, config.test]
            outputs.check_file(self.json, filter(None, inputs), replaces=".json")
        turns, metric = [], config.task.best_metric
        for turn in suite.compare(config, self.seeds, self.sides):
            score = f"{metric} {turn.metrics[metric]:.4f}"
            title = f"{suite.TITLES[turn.side]}, seed {turn.seed}"
            printing.print_to_stderr(f"{title}: {score}, {turn.seconds:.1f} s")
            turns.append(turn)
            if self.json is not None:
                write_json(self.json, [dataclasses.asdict(t) for t in turns])
        suite.show(turns, metric)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """Check and time everything on this device: kernels, training steps, encoding.

    Writes FILE.json, FILE.md with the same as tables, FILE.log and, where tiles were timed,
    FILE.tuning.json for MODERNBERT_JAX_TUNING: the best tiles, and the attention that was right and
    fastest. In a checkout an accelerator's run also decides what "auto" chooses, and is added to
    docs/results/hardware, and docs/results/hardware.md is rewritten. On a CPU shapes are tiny. The
    exit code is 1 if a part failed.
    """

    minutes: Positive = 8.0
    """Time for all parts, in minutes; the most telling ones come first."""
    output: Path = Path("device.json")
    """File to write, ending in .json; it and the files beside it replace those of an earlier
    run."""
    parts: tuple[str, ...] = ()
    """Names or groups of parts to run. Without it: all."""
    record: Path | None = None
    """JSON file of a run that was made elsewhere, to add to docs/results/hardware; runs nothing."""

    def run(self) -> int:
        """Run the parts; return the exit code."""
        from modernbert_jax.train.bench.device import command

        return command.device(self.minutes, self.output, self.parts, self.record)
