"""The program: a table of commands. What a command needs is imported when it is called."""

import contextlib
import functools
import inspect
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from modernbert_jax.errors import UserError, did_you_mean

Positional = tyro.conf.Positional
Format = Literal["hf", "jax", "flexbert", "sentence-transformers", "pylate"]


def quickstart(output: Path = Path("quickstart")) -> int:
    """Trains a tokenizer and a nano model on Python's own sources, and fills masks with it.

    Takes about four minutes on two CPU cores. Run it again in the same folder to resume.

    Args:
        output: Folder for everything that is made.
    """
    from modernbert_jax.train import quickstart

    return _stopped_or_done(quickstart.quickstart(output), "quickstart", output)


def convert(
    src: Positional[str],
    dst: Positional[Path],
    format: Format | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
) -> None:
    """Converts a checkpoint directory from one format into another.

    Args:
        src: Checkpoint to read; its format is detected.
        dst: Directory to write; it must not hold anything yet.
        format: Format to write. By default jax, and hf from jax.
        dtype: Type to cast all weights to. By default each keeps its own.
    """
    from modernbert_jax import convert

    print(convert.convert(src, dst, format=format, dtype=dtype))


def verify(a: Positional[Path], b: Positional[Path]) -> int:
    """Compares two checkpoints of any formats: every tensor, then what they compute.

    Args:
        a: One checkpoint directory.
        b: The other.
    """
    from modernbert_jax import convert

    result = convert.verify(a, b)
    print(result)
    return 0 if result.equal else 1


def inspect_(path: Positional[Path], json: bool = False) -> None:
    """Shows a checkpoint's format, configuration, parameters and tokenizer.

    Args:
        path: Checkpoint directory.
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
        input: Files or globs: plain text, .jsonl, .jsonl.gz, .jsonl.zst (key "text").
        vocab_size: Ids in all; filled with [unusedN] up to a multiple of 64.
        output: Directory to write.
        max_length: Longest sequence of the model, in tokens; noted in tokenizer_config.json.
        on_error: Whether an empty, binary or otherwise unusable document stops the work.
    """
    from modernbert_jax import tokenizer
    from modernbert_jax.files import whole_directory
    from modernbert_jax.train.sources import Corpus

    corpus = Corpus.find(input, on_error=on_error)
    with whole_directory(output) as folder:
        trained = tokenizer.train(corpus, vocab_size, max_length=max_length)
        trained.save(folder)
    _print_skipped(corpus.skipped)
    print(f"{output}: {trained.vocab_size:,} ids")


def prepare(
    tokenizer: Path,
    input: tuple[str, ...],
    output: Path,
    length: tuple[int, ...] = (1024,),
    validation: float = 0.01,
    seed: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
) -> None:
    """Turns text into packed rows, from which `pretrain` reads.

    Args:
        tokenizer: Directory with tokenizer.json.
        input: Files or globs: plain text, .jsonl, .jsonl.gz, .jsonl.zst (key "text").
        output: Directory to write.
        length: Tokens in a row; one or several.
        validation: Share of the documents that is kept apart for evaluation.
        seed: Of the order of rows.
        on_error: Whether an empty, binary or otherwise unusable document stops the work.
    """
    from modernbert_jax.tokenizer import Tokenizer
    from modernbert_jax.train import prepare
    from modernbert_jax.train.sources import Corpus

    corpus = Corpus.find(input, on_error=on_error)
    prepare.prepare(
        corpus,
        Tokenizer.load(tokenizer),
        output,
        length,
        validation=validation,
        seed=seed,
        report=print,
    )
    _print_skipped(corpus.skipped)
    print(f"{output}: ready for `modernbert-jax pretrain --data {output}`")


def pretrain(args: Sequence[str]) -> int:
    """Pretrains a model, or goes on with it: pretrain CONFIG [--field.path value ...].

    CONFIG is the name of a preset, a Python file with config(), or a run's config.json. Any field
    can be changed behind it. The same command in the same folder resumes.
    """
    from modernbert_jax.train import presets
    from modernbert_jax.train.config import PretrainConfig

    named = bool(args) and not args[0].startswith("-")
    if not named and not {"-h", "--help"} & set(args):
        raise UserError(f"pretrain needs a CONFIG first; presets: {', '.join(presets.names())}")
    default = presets.load(args[0] if named else "nano")
    kind = Annotated[PretrainConfig, tyro.conf.AvoidSubcommands]
    config = _parse(kind, "pretrain CONFIG", args[named:], default=default)

    from modernbert_jax.train import loop

    finished = loop.pretrain(config)
    if finished:
        print(f"{config.output}: finished; the model lies in {Path(config.output) / 'export'}")
    return _stopped_or_done(finished, "pretrain", config.output)


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
    from modernbert_jax.train import report

    for path in report.report(runs, output):
        print(path)


def bench(
    suites: Positional[tuple[str, ...]],
    repeats: int = 3,
    json: Path | None = None,
) -> None:
    """Measures speed beside a peer that does the same work in the same run.

    Args:
        suites: What to measure: encode.
        repeats: Turns of each side, of which the best counts.
        json: File to write the numbers to.
    """
    from modernbert_jax.files import write_json
    from modernbert_jax.train import bench

    found = bench.run(suites, bench.Options(repeats=repeats))
    if json is not None:
        write_json(json, list(bench.rows(found)))


COMMANDS: dict[str, Callable[..., int | None]] = {
    "quickstart": quickstart,
    "convert": convert,
    "verify": verify,
    "inspect": inspect_,
    "tokenizer train": tokenizer_train,
    "prepare": prepare,
    "pretrain": pretrain,
    "fill-mask": fill_mask,
    "report": report,
    "bench": bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 2 wrong input, 1 anything else."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
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
    if name == "pretrain":
        return pretrain(args[1:])
    return _parse(_later(COMMANDS[name]), name, args[words:])() or 0


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
    lines = [f"  {name:18}{inspect.getdoc(f).splitlines()[0]}" for name, f in COMMANDS.items()]
    return "\n".join(
        [
            "usage: modernbert-jax COMMAND ...    (COMMAND --help tells more)",
            "",
            *lines,
            "",
            "--debug shows where an error came from. Exit codes: 0 done, 2 wrong input, 1 other.",
        ]
    )


def _complain(line: str, debug: bool, hint: bool = False) -> None:
    if debug:
        traceback.print_exc()
    more = "; --debug shows where" if hint and not debug else ""
    print(f"modernbert-jax: {' '.join(line.split())}{more}", file=sys.stderr)


def _stopped_or_done(finished: bool, command: str, output: Any) -> int:
    if not finished:
        print(f"{output}: stopped, checkpoint saved; run the same {command} command to resume")
    return 0


def _print_skipped(skipped: dict[str, int]) -> None:
    for reason, count in skipped.items():
        print(f"skipped {count:,} documents: {reason}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
