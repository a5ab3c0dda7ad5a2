"""The commands on text and prepared data: tokenizer train, prepare, data."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Count, Length, Rate, Seed

from . import output as printing
from .options import OnError

if TYPE_CHECKING:
    from modernbert_jax.train.rows.manifest import Manifest

_SHOWN = 20
"""Files with unusable documents that are printed; the manifest lists all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainTokenizer:
    """Train a byte-level BPE tokenizer with ModernBERT's special tokens and template."""

    input: tuple[str, ...]
    """Files, patterns, folders or URLs of text: .jsonl, .ndjson, .json, .csv, .tsv (also .gz, .zst,
    .bz2, .xz), .parquet (key or column "text"), plain text, MDS folders; or - for JSON lines from
    standard input."""
    vocab_size: Count
    """Number of tokens; padded with [unusedN] to a multiple of 64."""
    output: Path
    """Directory to write."""
    max_length: Length = 8192
    """Longest input of the model, in tokens, as written into tokenizer_config.json."""
    on_error: OnError = "stop"
    """Stop at an unusable document (empty, binary, ...), or skip it."""

    def run(self) -> None:
        """Train, and print the vocabulary's size."""
        from modernbert_jax import tokenizer
        from modernbert_jax.io.files import whole_directory
        from modernbert_jax.train.corpus.sources import Corpus

        corpus = Corpus.find(self.input, on_error=self.on_error)
        with whole_directory(self.output) as folder:
            trained = tokenizer.train(corpus, self.vocab_size, max_length=self.max_length)
            trained.save(folder)
        printing.print_skipped(corpus.skipped)
        print(f"{self.output}: {trained.vocab_size:,} ids")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare:
    """Tokenise text and pack it into rows for `pretrain`.

    Interrupt it at any time; running it again resumes. Rows depend on the text, the tokenizer,
    --length, --validation, --deduplicate and --seed alone.
    """

    tokenizer: str
    """Directory with tokenizer.json, any checkpoint or run with a tokenizer, or the name of a model
    on the hub."""
    output: str
    """Directory to write, or a URL (gs://, s3://)."""
    input: tuple[str, ...] = ()
    """Files, patterns, folders or URLs of text: .jsonl, .ndjson, .json, .csv, .tsv (also .gz, .zst,
    .bz2, .xz), .parquet, plain text (one document per file), MDS folders of text or token ids; or
    - for JSON lines from standard input."""
    mixture: Path | None = None
    """TOML file with a table [components.NAME] for each component of the corpus: input (as above),
    weight, epochs, field. Replaces --input."""
    length: tyro.conf.UseAppendAction[tuple[tuple[Length, ...], ...]] = ()
    """Row lengths in tokens, one or several. Without it: 1024."""
    field: str = "text"
    """Key or column of the text; dots lead into objects, as in meta.text."""
    validation: Rate = 0.01
    """Share of the documents that is held out for evaluation, from 0 to 1."""
    deduplicate: bool = False
    """Drop documents whose text occurred before in the same component."""
    seed: Seed = 0
    """Seed of the order of rows."""
    on_error: OnError = "stop"
    """Stop at an unusable document (empty, binary, ...), or skip it."""
    workers: Count | None = None
    """Number of processes or threads. None is one per core."""
    runner: Literal["DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner"] | None = None
    """Apache Beam runner to use instead of this machine's processes."""
    runner_options: tuple[str, ...] = ()
    """Options of the runner, as NAME=VALUE."""

    def run(self) -> None:
        """Prepare, and print what was skipped."""
        from modernbert_jax import convert
        from modernbert_jax.io.progress import Progress
        from modernbert_jax.train.corpus import components, sources
        from modernbert_jax.train.corpus.prepare import prepare

        if bool(self.input) == bool(self.mixture):
            raise UserError("prepare needs either --input or --mixture")
        corpus: Any
        if self.mixture is not None:
            corpus = components.read_mixture(self.mixture, self.on_error)
        else:
            corpus = sources.Corpus.find(self.input, field=self.field, on_error=self.on_error)
        with Progress(1, of="unit") as progress:
            began = time.monotonic()

            def watch(done: int, of: int, documents: int) -> None:
                speed = documents / max(time.monotonic() - began, 1e-3)
                progress.total = of
                progress.update("prepare", done, f"{documents:,} documents  {speed:,.0f}/s")

            manifest = prepare(
                corpus,
                convert.tokenizer_of(self.tokenizer),
                self.output,
                [n for group in self.length for n in group] or [1024],
                validation=self.validation,
                seed=self.seed,
                deduplicate=self.deduplicate,
                workers=self.workers,
                run=self._beam_runner(),
                report=print,
                watch=watch,
            )
        for line in skipped_lines(manifest):
            printing.print_to_stderr(line)
        print(f"{self.output}: ready for `modernbert-jax pretrain --data {self.output}`")

    def _beam_runner(self) -> Any:
        """The function that runs units of work with Apache Beam, or None. Raises `UserError`."""
        if self.runner is None:
            if self.runner_options:
                raise UserError("--runner-options needs --runner")
            return None
        from modernbert_jax.io import standard_input
        from modernbert_jax.io.store import is_remote
        from modernbert_jax.train.corpus import beam
        from modernbert_jax.train.corpus.writer import work_root

        if standard_input.NAME in self.input:
            raise UserError("--input - is on this machine, where a --runner may not be; name a URL")
        if self.runner in beam.ELSEWHERE and not is_remote(self.output):
            raise UserError(
                f"--output is {self.output}, which {self.runner} cannot see; pass a URL (gs://)"
            )
        return beam.runner(self.runner, self.runner_options, work_root(self.output))


def skipped_lines(manifest: "Manifest") -> list[str]:
    """Lines on the documents that were skipped: how many of which file, and why."""
    lines = [
        f"{source.path}: skipped {count:,} document{'s' * (count > 1)}: {reason}"
        for component in manifest.components.values()
        for source in component.sources
        for reason, count in source.skipped.items()
    ]
    if len(lines) > _SHOWN:
        more = f"... and {len(lines) - _SHOWN:,} more; manifest.json lists all"
        lines = [*lines[:_SHOWN], more]
    tokenless = sum(component.tokenless for component in manifest.components.values())
    if tokenless:
        lines.append(f"skipped {tokenless:,} documents without tokens")
    return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Show what prepared data hold: documents, lengths, packing, components, unusual tokens."""

    dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder written by `prepare`."""
    json: bool = False
    """Print JSON."""
    plot: Path | None = None
    """PNG file to draw the facts into; an existing one is replaced."""
    verify: bool = False
    """Compare every file with its checksum first."""

    def run(self) -> None:
        """Print the facts."""
        from modernbert_jax.io import outputs
        from modernbert_jax.train.corpus import report
        from modernbert_jax.train.rows import manifest
        from modernbert_jax.train.rows.prepared import Prepared

        prepared = Prepared(self.dir)
        if self.plot is not None:
            outputs.check_file(self.plot, [self.dir / manifest.NAME], replaces=".png")
        if self.verify:
            prepared.check(prepared.lengths(), hashed=sys.maxsize)
        facts = report.facts(prepared)
        if self.plot is not None:
            from modernbert_jax.train.corpus import plot

            plot.plot(facts, self.plot)
        printing.print_json(facts) if self.json else report.show(facts)
