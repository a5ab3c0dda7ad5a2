"""Files that the examples of the documentation name: small data and models with random weights.

A name is made when an example needs it. Names of models on the hub are in a cache beside, so the
examples read them as a user does, without a network.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import embedding
import models
import numpy as np
import pages
import pairs
import pyarrow
import pyarrow.parquet

from modernbert_jax import convert
from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names as tensor_names
from modernbert_jax.train.corpus import prepare
from modernbert_jax.train.corpus.sources import Corpus

Maker = Callable[[Path], object]


def sentences(count: int, least: int = 4, most: int = 40) -> list[str]:
    """Texts of words that the pages have."""
    words = " ".join(page.read_text() for page in pages.PAGES).split()
    rng = np.random.default_rng(0)
    return [
        " ".join(words[i : i + n])
        for i, n in zip(
            rng.integers(len(words) - most, size=count),
            rng.integers(least, most, count),
            strict=True,
        )
    ]


def masked_lm(folder: Path, vocab_size: int = 2048, ids: int = 2048, labels: int = 0) -> None:
    """A nano model with random weights and a tokenizer of `ids` ids; a tagger with labels."""
    tokenizer = tokenizers.train(sentences(3000), ids)
    roles = {role: tokenizer.role_id(role) for role in ("cls", "sep", "pad")}
    config = ModernBertConfig.preset("nano")
    config = ModernBertConfig(
        **{
            **{f: getattr(config, f) for f in config.__dataclass_fields__},
            **{f"{role}_token_id": i for role, i in roles.items()},
            **{"bos_token_id": roles["cls"], "eos_token_id": roles["sep"]},
            "vocab_size": vocab_size,
        }
    )
    rng, params = np.random.default_rng(0), {}
    for path, shape in sorted(tensor_names.shapes(tensor_names.table(config, "masked_lm")).items()):
        leaf = np.ones(shape) if path[-1] == "scale" else 0.02 * rng.standard_normal(shape)
        tensor_names.put(params, path, leaf.astype(np.float32))
    checkpoint = convert.Checkpoint(config=config, params=params, files=tokenizer.files)
    convert.save(checkpoint, folder, "hf")


def _model(name: str) -> Maker:
    return lambda folder: models.write(name, folder)


def decoder(folder: Path) -> None:
    """A decoder with as many ids as the released ones."""
    models.MODELS["decoder of the pages"] = models.Model(
        architecture="ModernBertDecoderForCausalLM", config=models._decoder(vocab_size=50368)
    )
    models.write("decoder of the pages", folder)


def base(folder: Path) -> None:
    """A model with as many ids as ModernBERT, and a tokenizer with unused tokens."""
    masked_lm(folder, 50368, 2000)


HUB: dict[str, Maker] = {
    "answerdotai/ModernBERT-base": base,
    "nomic-ai/modernbert-embed-base": _model("mean"),
    "Alibaba-NLP/gte-reranker-modernbert-base": _model("reranker"),
    "lightonai/GTE-ModernColBERT-v1": _model("colbert"),
    "jhu-clsp/ettin-decoder-150m": decoder,
    "jhu-clsp/ettin-encoder-17m": base,
    "jhu-clsp/ettin-encoder-32m": base,
}
"""Stand-ins of models on the hub."""


def cache(folder: Path) -> None:
    """Write the stand-ins as the hub's own client caches them."""
    for name, make in HUB.items():
        model = folder / f"models--{name.replace('/', '--')}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text("0" * 40)
        (model / "snapshots").mkdir()
        make(model / "snapshots" / ("0" * 40))


def _lines(*columns: str, count: int = 40, **labels: list) -> Maker:
    """JSON lines of texts, with labels that repeat."""

    def make(path: Path) -> None:
        texts = iter(sentences(count * len(columns)))
        rows = [
            {c: next(texts) for c in columns} | {k: v[i % len(v)] for k, v in labels.items()}
            for i in range(count)
        ]
        pairs.write(path, rows)

    return make


def _table(maker: Maker) -> Maker:
    """The same as Parquet or CSV."""

    def make(path: Path) -> None:
        maker(path.with_suffix(".jsonl"))
        rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        path.with_suffix(".jsonl").unlink()
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            embedding.write_table(path, rows)

    return make


def collection(folder: Path) -> None:
    """A collection in BEIR's layout, with judgements for training and for tests."""
    pairs.collection(folder, pairs.records(30))
    shutil.copy(folder / "qrels" / "test.tsv", folder / "qrels" / "train.tsv")


def texts(folder: Path) -> None:
    """Plain texts, and JSON lines of three kinds."""
    for i, text in enumerate(sentences(300, 30, 200)):
        (folder / f"{i:03d}.txt").write_text(text)
    for kind in ("science", "prose", "code"):
        rows = [{"text": text} for text in sentences(200, 30, 200)]
        embedding.write_jsonl(folder / f"{kind}.jsonl.zst", rows)


def prepared(folder: Path) -> None:
    """Rows of two lengths, prepared from texts."""
    text = embedding.write_jsonl(
        folder.with_name("prepared.jsonl"), [{"text": t} for t in sentences(300, 30, 200)]
    )
    tokenizer = tokenizers.train(sentences(3000), 2048)
    prepare.prepare(Corpus([text]), tokenizer, folder, (1024, 4096), validation=0.05)


def mixture(path: Path) -> None:
    """The mixture that a guide shows."""
    (block,) = pages.blocks(pages.ROOT / "docs" / "guides" / "pretrain.md", "toml")
    path.write_text(block.text)


def _fixture(name: str) -> Maker:
    return lambda path: shutil.copy(pages.ROOT / "tests" / "fixtures" / name, path)


def ner(folder: Path) -> None:
    """A tagger."""
    models.write("token", folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "O", "1": "B-PER", "2": "I-PER"}
    (folder / "config.json").write_text(json.dumps(config))


MOVIES = _lines("sentence", label=[0, 1])
ENTAILMENT = _table(_lines("sentence1", "sentence2", label=[0, 1]))
RETRIEVAL = {"retriever": "mean", "reranker": "reranker", "colbert": "colbert", "splade": "sparse"}

FILES: dict[str, Maker] = {
    "texts.txt": lambda path: path.write_text("\n".join(sentences(30))),
    "text/": texts,
    "mixture.toml": mixture,
    "train.jsonl": MOVIES,
    "dev.jsonl": MOVIES,
    "new.jsonl": _lines("sentence"),
    "train.csv": _table(_lines("sentence1", "sentence2", label=[0.5, 1.0, 4.0])),
    "boolq.jsonl": _lines("question", "passage", label=[True, False]),
    "glue/rte/train.parquet": ENTAILMENT,
    "glue/rte/validation.parquet": ENTAILMENT,
    "glue/mrpc/train.parquet": ENTAILMENT,
    "glue/mrpc/validation.parquet": ENTAILMENT,
    "glue/mnli/train.parquet": _table(_lines("premise", "hypothesis", label=[0, 1, 2])),
    "glue/mnli/validation_matched.parquet": _table(
        _lines("premise", "hypothesis", label=[0, 1, 2])
    ),
    "data": prepared,
    "base": base,
    "nano": masked_lm,
    "tokenizer": masked_lm,
    "quickstart/run/export": masked_lm,
    "run/export": masked_lm,
    "ner/export": ner,
    **{f"{name}/export": _model(kind) for name, kind in RETRIEVAL.items()},
    "pairs/export": base,
    "tiny_stage1.pt": _fixture("flexbert/tiny_stage1.pt"),
    "scifact": collection,
    "nfcorpus": collection,
    "corpus.jsonl.zst": lambda path: embedding.write_jsonl(path, embedding.records(40)),
    "corpus.jsonl": lambda path: _of_collection(path, "corpus.jsonl"),
    "queries.jsonl": lambda path: _of_collection(path, "queries.jsonl"),
    "pairs.jsonl": lambda path: pairs.write(path, pairs.records(40, 0)),
    "sts.jsonl": lambda path: pairs.write(path, _similar(40)),
    "stsb.jsonl": lambda path: pairs.write(path, _similar(40)),
    "lists.jsonl": lambda path: pairs.write(path, pairs.records(20, 2)),
    "triplets.jsonl": lambda path: pairs.write(path, pairs.records(20, 1)),
    "scored.jsonl": lambda path: pairs.write(path, pairs.scored(20)),
    "titles": collection,
    "msmarco/train.parquet": _table(lambda path: pairs.write(path, triplets(20))),
    "msmarco/triplets.parquet": _table(lambda path: pairs.write(path, triplets(20))),
    "pairs/part.parquet": _table(lambda path: pairs.write(path, pairs.records(20, 0))),
    "lists/part.parquet": _table(lambda path: pairs.write(path, pairs.records(20, 7))),
}
"""How to make what the examples name, by its path; folders of other files end in "/"."""


def triplets(count: int) -> list[dict]:
    """Queries with a positive and a negative."""
    rows = pairs.records(count, 1)
    return [{"negative" if k == "negative_0" else k: v for k, v in row.items()} for row in rows]


def _similar(count: int) -> list[dict]:
    return [
        {"sentence1": row["query"], "sentence2": row["positive"], "label": row["label"]}
        for row in pairs.similar(count)
    ]


def _of_collection(path: Path, name: str) -> None:
    collection(path.with_suffix(".folder"))
    shutil.copy(path.with_suffix(".folder") / name, path)


def provide(folder: Path, example: str, others: dict[str, Maker]) -> None:
    """Make all that an example names and that is not there; `others` are a page's own."""
    for name, make in {**FILES, **others}.items():
        path = folder / name.rstrip("/")
        stem = name.rpartition("part.parquet")[0] or name
        named = re.search(rf"(?<![\w./-]){re.escape(stem)}(?![\w-])", example)
        written = f"--output {name.partition('/')[0]}" in example
        if named and not written and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir()
            make(path)
