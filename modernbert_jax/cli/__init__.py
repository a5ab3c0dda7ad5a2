"""The program: a table of commands. What a command needs is imported when it is called."""

import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.host_memory import keep_freed, keep_freed_on_cpu

Positional = tyro.conf.Positional
Format = Literal["hf", "jax", "flexbert", "sentence-transformers", "pylate"]


def quickstart(output: Path = Path("quickstart")) -> int:
    """Trains a tokenizer and a nano model on Python's own sources, and fills masks with it.

    Takes about four minutes on two CPU cores. Run it again in the same folder to resume.

    Args:
        output: Folder for everything that is made.
    """
    from modernbert_jax.train import quickstart

    keep_freed_on_cpu()
    return _stopped_or_done(quickstart.quickstart(output), "quickstart", output)


def convert(
    src: Positional[str],
    dst: Positional[Path],
    format: Format | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
) -> None:
    """Converts a checkpoint from one format into another.

    Args:
        src: Checkpoint to read, a directory or a research .pt file; its format is detected. A run's
            lie in RUN/checkpoints/STEP.
        dst: Directory to write, which must not hold anything yet, or a new research file NAME.pt.
        format: Format to write. By default jax, and hf from jax and from a run.
        dtype: Type to cast all weights to. By default each keeps its own.
    """
    from modernbert_jax import convert
    from modernbert_jax.io import progress

    keep_freed()
    with _warnings_in_lines(), progress.transfer("converting") as draw:
        done = convert.convert(src, dst, format=format, dtype=dtype, progress=draw)
    print(done)


def verify(a: Positional[Path], b: Positional[Path], tolerance: float = 1e-5) -> int:
    """Compares two checkpoints of any formats: every tensor, then what they compute.

    Args:
        a: One checkpoint directory.
        b: The other.
        tolerance: Largest absolute difference that counts as equal.
    """
    from modernbert_jax import convert

    result = convert.verify(a, b, tolerance=tolerance)
    print(result)
    return 0 if result.equal else 1


def inspect_(path: Positional[Path], json: bool = False) -> None:
    """Shows a checkpoint's format, configuration, parameters and tokenizer.

    Args:
        path: Checkpoint directory, or research .pt file.
        json: Print JSON.
    """
    from modernbert_jax import convert

    facts = convert.inspect(path)
    _print_json(facts) if json else convert.show(facts)


def tokenizer_train(
    input: tuple[str, ...],
    vocab_size: int,
    output: Path,
    max_length: int = 8192,
    on_error: Literal["stop", "skip"] = "stop",
) -> None:
    """Trains a byte-level BPE with ModernBERT's special tokens and template.

    Args:
        input: Files, globs, folders or URLs: .jsonl, .jsonl.gz, .jsonl.zst (key "text"),
            .parquet, plain text, MDS folders of texts.
        vocab_size: Ids in all; filled with [unusedN] up to a multiple of 64.
        output: Directory to write.
        max_length: Longest sequence of the model, in tokens; noted in tokenizer_config.json.
        on_error: Whether an empty, binary or otherwise unusable document stops the work.
    """
    from modernbert_jax import tokenizer
    from modernbert_jax.io.files import whole_directory
    from modernbert_jax.train.corpus.sources import Corpus

    corpus = Corpus.find(input, on_error=on_error)
    with whole_directory(output) as folder:
        trained = tokenizer.train(corpus, vocab_size, max_length=max_length)
        trained.save(folder)
    _print_skipped(corpus.skipped)
    print(f"{output}: {trained.vocab_size:,} ids")


def prepare(
    tokenizer: Path,
    output: str,
    input: tuple[str, ...] = (),
    mixture: Path | None = None,
    length: tyro.conf.UseAppendAction[tuple[tuple[int, ...], ...]] = (),
    field: str = "text",
    validation: float = 0.01,
    deduplicate: bool = False,
    seed: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
    workers: int | None = None,
    runner: Literal["DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner"] | None = None,
    runner_options: tuple[str, ...] = (),
) -> None:
    """Turns text into packed rows, from which `pretrain` reads.

    Stopped or killed, the same command goes on where it was. Rows depend on the text, the
    tokenizer, lengths, validation, deduplicate and seed, and on nothing else.

    Args:
        tokenizer: Directory with tokenizer.json.
        output: Directory to write, or a URL (gs://, s3://).
        input: Files, globs, folders or URLs: .jsonl, .jsonl.gz, .jsonl.zst, .parquet, plain text
            (one document a file), MDS folders of texts or token ids.
        mixture: TOML file with a table [components.NAME] for each part of the corpus: input (as
            above), weight, epochs, field. Instead of --input.
        length: Tokens in a row; one or several. By default 1024.
        field: Key or column of the text.
        validation: Share of the documents that is kept apart for evaluation.
        deduplicate: Leave out documents whose text came before in the same component.
        seed: Of the order of rows.
        on_error: Whether an empty, binary or otherwise unusable document stops the work.
        workers: Processes or threads. By default as many as there are cores.
        runner: Apache Beam runner that does the work instead of this machine's processes.
        runner_options: Options of the runner, as NAME=VALUE.
    """
    from modernbert_jax.train.corpus import prepare_command

    prepare_command.main(
        tokenizer,
        output,
        input=input,
        mixture=mixture,
        lengths=[n for group in length for n in group] or [1024],
        field=field,
        validation=validation,
        deduplicate=deduplicate,
        seed=seed,
        on_error=on_error,
        workers=workers,
        runner=runner,
        runner_options=runner_options,
    )


def data(
    dir: Positional[Path], json: bool = False, plot: Path | None = None, verify: bool = False
) -> None:
    """Shows what a prepared folder holds: documents, lengths, packing, components, odd tokens.

    Args:
        dir: Folder made by `prepare`.
        json: Print JSON.
        plot: PNG to write.
        verify: Compare every file with its checksum first.
    """
    from modernbert_jax.train.corpus import data_report
    from modernbert_jax.train.rows.data import Prepared

    prepared = Prepared(dir)
    if verify:
        prepared.check(prepared.lengths(), hashed=sys.maxsize)
    found = data_report.facts(prepared)
    if plot is not None:
        from modernbert_jax.train.corpus import data_plot

        data_plot.plot(found, plot)
    _print_json(found) if json else data_report.show(found)


def average(checkpoints: Positional[tuple[Path, ...]], output: Path, format: Format = "hf") -> None:
    """Writes the mean of checkpoints of one architecture, a model soup.

    Args:
        checkpoints: Two or more, of any formats; a run's lie in RUN/checkpoints.
        output: Directory to write; it must not hold anything yet.
        format: Format to write.
    """
    from modernbert_jax import convert

    convert.save(convert.average(checkpoints), output, format)
    print(f"{output}: mean of {len(checkpoints)} checkpoints")


def fill_mask(text: Positional[str], model: str, top_k: int = 5) -> None:
    """Fills every [MASK] of a text.

    Args:
        text: Text with one or more [MASK].
        model: Checkpoint directory of any format, or the name of a model on the hub.
        top_k: Candidates for each mask.
    """
    from modernbert_jax.pretrained import ModernBert

    bert = ModernBert.from_pretrained(model)
    for found in bert.fill_mask(text, top_k=top_k):
        print("  ".join(f"{token!r} {probability:.3f}" for token, probability in found))


def report(runs: Positional[tuple[Path, ...]], output: Path | None = None) -> None:
    """Draws the curves of runs as PNG, and as a page that holds them.

    Args:
        runs: Folders of runs.
        output: Path of the pictures without ending. By default report in the first run's folder.
    """
    from modernbert_jax.train.report import curves

    for path in curves.report(runs, output):
        print(path)


class Elsewhere(NamedTuple):
    """A command whose function lies in a module of its own, imported when it is called.

    With `own_arguments` the function gets the words behind the command, and `_parse`.
    """

    module: str
    function: str
    summary: str
    own_arguments: bool = False

    def load(self) -> Callable[..., Any]:
        """The function."""
        return getattr(
            importlib.import_module(f"modernbert_jax.train.{self.module}"), self.function
        )


COMMANDS: dict[str, Callable[..., int | None] | Elsewhere] = {
    "quickstart": quickstart,
    "convert": convert,
    "verify": verify,
    "inspect": inspect_,
    "average": average,
    "tokenizer train": tokenizer_train,
    "prepare": prepare,
    "data": data,
    "plan": Elsewhere(
        "pretrain.command",
        "plan",
        "Compiles the training step for a machine that is not there.",
        True,
    ),
    "pretrain": Elsewhere(
        "pretrain.command", "pretrain", "Pretrains a model, or goes on with it.", True
    ),
    "finetune": Elsewhere(
        "finetune.command", "finetune", "Fine-tunes a model, or goes on with it.", True
    ),
    "sweep": Elsewhere(
        "finetune.sweep_command", "sweep", "Fine-tunes over a grid, and tabulates it.", True
    ),
    "evaluate": Elsewhere(
        "finetune.command", "evaluate", "Measures a fine-tuned model on labelled examples."
    ),
    "predict": Elsewhere("finetune.command", "predict", "Writes what a fine-tuned model says."),
    "fill-mask": fill_mask,
    "report": report,
    "bench": Elsewhere("bench.command", "bench", "Measures speed beside a peer in the same run."),
    "bench finetune": Elsewhere(
        "bench.command", "finetune", "Compares fine-tuning with transformers' Trainer.", True
    ),
    "bench kernels": Elsewhere(
        "bench.command", "kernels", "Times every implementation of attention on this device."
    ),
    "bench device": Elsewhere(
        "bench.device.command", "device", "Checks and times everything on this device."
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 2 wrong input, 1 anything else."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    code = _exit_code([a for a in args if a != "--debug"], debug)
    if code and "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        # At its end jax would wait for the other processes, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _exit_code(args: list[str], debug: bool) -> int:
    try:
        return _run(args)
    except UserError as error:
        _complain(str(error), debug)
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; run the same command again", debug)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        _complain(f"{type(error).__name__}: {error}", debug, hint=True)
        return 1


def _run(args: list[str]) -> int:
    if args and args[0] in ("--version", "-V"):
        from modernbert_jax import __version__

        print(f"modernbert-jax {__version__}")
        return 0
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    words = 2 if " ".join(args[:2]) in COMMANDS else 1
    name = " ".join(args[:words])
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}; {did_you_mean(name, COMMANDS)}")
    command = COMMANDS[name]
    if isinstance(command, Elsewhere):
        if command.own_arguments:
            return command.load()(args[words:], _parse) or 0
        command = command.load()
    return _parse(_later(command), name, args[words:])() or 0


def _parse(target: Any, name: str, args: Sequence[str], **options: Any) -> Any:
    """What tyro makes of the arguments; what it has to say about wrong ones in one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(target, prog=f"modernbert-jax {name}", args=list(args), **options)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_one_line(complaint.getvalue())) from None


def _one_line(box: str) -> str:
    """What a framed complaint says below its title, and the first suggestion if there is one."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    if not box.startswith("╭"):  # without Unicode the title is a line, not part of the frame
        lines = lines[1:]
    rules = [i for i, line in enumerate(lines) if line.startswith(("╭", "──", "---"))]
    said = " ".join(lines[rules[0] + 1 : rules[1]])
    if "Perhaps you meant:" in lines:
        said += f"; did you mean {lines[lines.index('Perhaps you meant:') + 1].split()[0]}?"
    return said


def _later(command: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """The command with its signature, but called only once its arguments are known to be right."""
    return functools.wraps(command)(lambda *a, **k: functools.partial(command, *a, **k))


def _overview() -> str:
    lines = [f"  {name:18}{_summary(command)}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: modernbert-jax COMMAND ...    (COMMAND --help tells more)",
            "",
            *lines,
            "",
            "--debug shows where an error came from. Exit codes: 0 done, 2 wrong input, 1 other.",
        ]
    )


def _summary(command: Callable | Elsewhere) -> str:
    if isinstance(command, Elsewhere):
        return command.summary
    return inspect.getdoc(command).splitlines()[0]


def _complain(line: str, debug: bool, hint: bool = False) -> None:
    if debug:
        traceback.print_exc()
    more = "; --debug shows where" if hint and not debug else ""
    print(f"modernbert-jax: {' '.join(line.split())}{more}", file=sys.stderr)


@contextlib.contextmanager
def _warnings_in_lines() -> Iterator[None]:
    """Warnings of the block as lines on stderr, each once, without the code that they come from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield
        finally:
            for message in dict.fromkeys(str(w.message) for w in caught):
                print(f"warning: {' '.join(message.split())}", file=sys.stderr)


def _stopped_or_done(finished: bool, command: str, output: Any) -> int:
    if not finished:
        print(f"{output}: stopped, checkpoint saved; run the same {command} command to resume")
    return 0


def _print_skipped(skipped: dict[str, int]) -> None:
    for reason, count in skipped.items():
        print(f"skipped {count:,} documents: {reason}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
