"""The embedded demonstration: from an empty folder to a model that fills masks, in minutes.

The text is available wherever Python is: the standard library's sources, and their docstrings as
documents of their own. Each part is written completely or not at all, so the same command resumes.
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
from modernbert_jax.io import outputs
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

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
"""Folders of the standard library without text of its own."""


def quickstart(output: str | Path) -> bool:
    """Run or resume the demonstration in a folder. Returns whether it is finished."""
    folder, began = Path(output), time.monotonic()
    outputs.check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    config = dataclasses.replace(nano.config(), output=str(folder / "run"), data=str(data))
    corpus, tokenizer = folder / "corpus.jsonl", folder / "tokenizer"
    lengths = [stage.length for stage in config.stages]
    if not corpus.exists():
        with phase("reading the standard library"):
            lines = (json.dumps({"text": text}) + "\n" for text in standard_library())
            write_bytes(corpus, "".join(lines).encode())
    if not tokenizer.exists():
        with phase("training a tokenizer"), whole_directory(tokenizer) as temporary:
            trained = tokenizers.train(
                Corpus([corpus]), config.model.vocab_size, max_length=max(lengths)
            )
            trained.save(temporary)
    if not data.exists():
        with phase("tokenising and packing"):
            texts, trained = Corpus([corpus]), Tokenizer.load(tokenizer)
            prepare(texts, trained, data, lengths, validation=0.03, report=print)
    print(
        f"pretraining {config.model.parameter_count():,} parameters in {len(config.stages)} stages,"
        f" {config.starts[-1]} steps",
        flush=True,
    )
    if not pretrain(config):
        return False
    run = PretrainRun.open(config).folder
    metrics = run.path / "metrics.jsonl"
    losses = [row["eval_loss"] for row in read_rows(metrics) if "eval_loss" in row]
    print(f"\nvalidation loss {losses[0]:.3f} before, {losses[-1]:.3f} after\n")
    _fill(run.export)
    for name, path in (
        ("corpus", corpus),
        ("tokenizer", tokenizer),
        ("packed rows", data),
        ("metrics", metrics),
        ("TensorBoard", run.path / "tensorboard"),
        ("checkpoints", run.checkpoints),
        ("curves", curves(run.path, folder / "curves.png")),
        ("Hugging Face model", run.export),
    ):
        print(f"{name:20}{path}")
    print(f"\ndone in {time.monotonic() - began:.0f} s")
    return True


def standard_library() -> Iterator[str]:
    """Yield the sources of Python's standard library, and each longer docstring by itself."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in sorted(root.rglob("*.py")) if not _SKIPPED & {*p.relative_to(root).parts}]
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


def _fill(model: Path) -> None:
    """Print what the model predicts for the masks of `EXAMPLES`."""
    from modernbert_jax.pretrained import ModernBert

    bert = ModernBert.from_pretrained(model)
    for text in EXAMPLES:
        for predictions in bert.fill_mask(text, top_k=3):
            shown = ", ".join(f"{token.strip()!r} {share:.0%}" for token, share in predictions)
            print(f"{text.strip()!r:32} {shown}")
    print()
