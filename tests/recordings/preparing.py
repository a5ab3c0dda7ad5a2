"""Recorded runs of `tokenizer train`, `prepare` and `data`."""

from typing import Any

import facts
import inputs
from program import Program

TOKENIZER, OTHER_TOKENIZER = "tokenizer", "other-tokenizer"
MODEL, SMALL_MODEL = "model", "small-model"
MIXED, OTHER_WORDS = "data/mixed", "data/other-words"


def make_inputs(program: Program) -> None:
    """Write texts and examples, train tokenizers, prepare rows: what other runs start from."""
    inputs.write_texts(program.folder / "texts")
    inputs.write_labelled(program.folder / "labelled")
    _train_tokenizer(program, TOKENIZER, "texts/*.jsonl", str(inputs.VOCABULARY))
    _train_tokenizer(program, OTHER_TOKENIZER, "texts/prose.jsonl", "384")
    for name, layers in ((MODEL, inputs.LAYERS), (SMALL_MODEL, inputs.FEW_LAYERS)):
        inputs.write_checkpoint(program.folder / name, program.folder / TOKENIZER, layers)
    mixture, lengths = ("--mixture", "texts/mixture.toml"), ("--length", "64", "128")
    _prepare(program, TOKENIZER, MIXED, *mixture, *lengths, "--deduplicate")
    _prepare(program, OTHER_TOKENIZER, OTHER_WORDS, "--input", "texts/prose.jsonl", *lengths)


def record(program: Program) -> dict[str, Any]:
    """Hashes of all files that were prepared, and the facts that `data` prints."""
    plain = ("--input", "texts/*.jsonl", "--length", "64")
    _prepare(program, TOKENIZER, "data/plain", *plain)
    _prepare(program, TOKENIZER, "data/deduplicated", *plain, "--deduplicate", "--seed", "3")
    _prepare(program, TOKENIZER, "data/two-workers", *plain, "--workers", "2")
    folders = [MIXED, OTHER_WORDS, "data/plain", "data/deduplicated", "data/two-workers"]
    summaries = program.run_together([["data", folder, "--json", "--verify"] for folder in folders])
    results: dict[str, Any] = {
        name: facts.hashes(program.folder / name)
        for name in ("texts", "labelled", TOKENIZER, OTHER_TOKENIZER, MODEL, SMALL_MODEL)
    }
    for folder, result in zip(folders, summaries, strict=True):
        results[folder] = {
            "exit": result.code,
            "files": facts.hashes(program.folder / folder, ("manifest.json",)),
            "manifest": facts.read_json(program.folder / folder / "manifest.json"),
            "data": facts.printed(result.stdout),
        }
    return results


def _train_tokenizer(program: Program, output: str, texts: str, size: str) -> None:
    arguments = ("--input", texts, "--vocab-size", size, "--output", output)
    program.run("tokenizer", "train", *arguments)


def _prepare(program: Program, tokenizer: str, output: str, *arguments: str) -> None:
    common = ("--tokenizer", tokenizer, "--output", output, "--validation", "0.15")
    workers = () if "--workers" in arguments else ("--workers", "1")
    program.run("prepare", *common, *workers, *arguments)
