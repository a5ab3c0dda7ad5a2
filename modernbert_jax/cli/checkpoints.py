"""The commands on checkpoints: convert, verify, inspect, average."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from modernbert_jax.io.host_memory import keep_freed
from modernbert_jax.ranges import NonNegative

from . import output as printing
from .options import Format


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a checkpoint from one format into another.

    The source's format is detected. Weights keep their types unless --dtype is passed.
    """

    src: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Checkpoint to read: a directory of any format, a research .pt file, a run's folder, one of
    its checkpoints (RUN/checkpoints/STEP), or the name of a model on the hub."""
    dst: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Directory to write, empty or not there yet, or a new research file NAME.pt."""
    format: Format | None = None
    """Format to write. None is hf from jax and from a training run, and jax from anything else."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type to cast all weights to. None keeps the type of each."""

    def run(self) -> None:
        """Convert, and print what was done."""
        from modernbert_jax import convert
        from modernbert_jax.io import progress

        keep_freed()
        with printing.warnings_in_lines(), progress.transfer("converting") as draw:
            line = convert.convert(
                self.src, self.dst, format=self.format, dtype=self.dtype, progress=draw
            )
        print(line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify:
    """Compare two checkpoints of any formats: every tensor, then hidden states and logits.

    The exit code is 0 where they are equal within the tolerance, and 1 where they are not.
    """

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """Checkpoint: a directory, a research .pt file, a run's folder, one of its checkpoints, or the
    name of a model on the hub."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The checkpoint to compare it with."""
    tolerance: NonNegative = 1e-5
    """Largest absolute difference that counts as equal."""

    def run(self) -> int:
        """Compare, and print the result."""
        from modernbert_jax import convert

        with printing.warnings_in_lines():
            result = convert.verify(self.a, self.b, tolerance=self.tolerance)
        print(result)
        return 0 if result.equal else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show a checkpoint's format, configuration, parameters and tokenizer."""

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Checkpoint: a directory, a research .pt file, a run's folder, one of its checkpoints, or the
    name of a model on the hub."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Print the facts."""
        from modernbert_jax import convert

        with printing.warnings_in_lines():
            facts = convert.inspect(self.path)
        printing.print_json(facts) if self.json else convert.show(facts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Average:
    """Write the mean of several checkpoints of one architecture (a model soup)."""

    checkpoints: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT...")
    ]
    """Two or more checkpoints of any formats, or names on the hub. Those of a training run are in
    RUN/checkpoints."""
    output: Path
    """Directory to write, empty or not there yet."""
    format: Format = "hf"
    """Format to write."""

    def run(self) -> None:
        """Average, and print where the mean is."""
        from modernbert_jax import convert

        convert.check_target(self.output, self.format)
        with printing.warnings_in_lines():
            convert.save(convert.average(self.checkpoints), self.output, self.format)
        print(f"{self.output}: mean of {len(self.checkpoints)} checkpoints")
