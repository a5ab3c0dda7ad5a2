"""The embedded demonstration: from an empty folder to a model that fills masks, in minutes.

The text is what every machine with Python has: the standard library's sources, and their
docstrings as documents of their own. Every part is written whole or not at all, so that the same
command goes on wherever it was stopped.
"""

import ast
import dataclasses
import json
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.configs import nano
from modernbert_jax.errors import UserError
from modernbert_jax.io.files import whole_directory, write_bytes
from modernbert_jax.io.progress import phase
from modernbert_jax.tokenizer import Tokenizer

from .corpus.prepare import prepare
from .corpus.sources import Corpus
from .engine.metrics import read_rows
from .pretrain.run import PretrainRun, pretrain
from .report.curves import curves

EXAMPLES = (
    "    def __init__([MASK], name):",
    "    def close([MASK]):",
    "        return [MASK].name",
)

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


def quickstart(output: str | Path) -> bool:
    """Runs, or goes on with, the demonstration in a folder. Returns whether it is finished."""
    folder, began = Path(output), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(
        nano.config(), output=str(folder / "run"), data=str(folder / "data")
    )
    corpus = folder / "corpus.jsonl"
    if not corpus.exists():
        with phase("reading the standard library"):
            write_bytes(corpus, b"".join(_line(text) for text in standard_library()))
    if not (folder / "tokenizer").exists():
        with phase("training a tokenizer"), whole_directory(folder / "tokenizer") as temporary:
            longest = max(stage.length for stage in config.stages)
            tokenizers.train(Corpus([corpus]), config.model.vocab_size, max_length=longest).save(
                temporary
            )
    if not (folder / "data").exists():
        with phase("tokenising and packing"):
            lengths = [stage.length for stage in config.stages]
            tokenizer = Tokenizer.load(folder / "tokenizer")
            prepare(
                Corpus([corpus]),
                tokenizer,
                folder / "data",
                lengths,
                validation=0.03,
                report=print,
            )
    print(
        f"pretraining {config.model.parameter_count():,} parameters in {len(config.stages)} stages,"
        f" {config.starts[-1]} steps",
        flush=True,
    )
    if not pretrain(config):
        return False
    run = PretrainRun.open(config).folder
    picture = curves(run.path, folder / "curves.png")
    losses = [
        row["eval_loss"] for row in read_rows(run.path / "metrics.jsonl") if "eval_loss" in row
    ]
    print(f"\nvalidation loss {losses[0]:.3f} before, {losses[-1]:.3f} after\n")
    _fill(run.export)
    for what, where in (
        ("corpus", corpus),
        ("tokenizer", folder / "tokenizer"),
        ("packed rows", folder / "data"),
        ("metrics", run.path / "metrics.jsonl"),
        ("TensorBoard", run.path / "tensorboard"),
        ("checkpoints", run.checkpoints),
        ("curves", picture),
        ("Hugging Face model", run.export),
    ):
        print(f"{what:20}{where}")
    print(f"\ndone in {time.monotonic() - began:.0f} s")
    return True


def standard_library() -> Iterator[str]:
    """The sources of Python's standard library, and each longer docstring by itself."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in sorted(root.rglob("*.py")) if not _LEFT_OUT & {*p.relative_to(root).parts}]
    if not paths:
        raise UserError(f"{root}: has no sources of the standard library; install them")
    for path in paths:
        try:
            source = path.read_text(encoding="utf-8")
            nodes = ast.walk(ast.parse(source))
        except (UnicodeDecodeError, SyntaxError, OSError):
            continue
        if source.strip():
            yield source
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        for text in (ast.get_docstring(n) for n in nodes if isinstance(n, documented)):
            if text and len(text) > 200:
                yield text


def _line(text: str) -> bytes:
    return (json.dumps({"text": text}) + "\n").encode()


def _fill(model: Path) -> None:
    from modernbert_jax.pretrained import ModernBert

    bert = ModernBert.from_pretrained(model)
    for text in EXAMPLES:
        for found in bert.fill_mask(text, top_k=3):
            shown = ", ".join(f"{token.strip()!r} {share:.0%}" for token, share in found)
            print(f"{text.strip()!r:32} {shown}")
    print()
