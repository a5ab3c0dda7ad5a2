"""Small data sets and objectives of retrieval: a document repeats the rare words of its query."""

import json
from pathlib import Path

import corpus
import jax
import numpy as np
import tiny

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.heads import MaskedLM
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.model import Encoder
from modernbert_jax.pipeline import Pooling
from modernbert_jax.train.retrieval.batches import Batches
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.retrieval.data import ExampleSet, TextExample, write_qrels
from modernbert_jax.train.retrieval.objective import EmbeddingObjective
from modernbert_jax.train.retrieval.sampling import Members
from modernbert_jax.train.retrieval.texts import tokenize


def records(count: int, negatives: int = 1, seed: int = 0) -> list[dict[str, str]]:
    """Examples whose positive shares two words with its query, and whose negatives share one."""
    rng = np.random.default_rng(seed)

    def text(words, least, most):
        others = rng.choice(corpus.WORDS, int(rng.integers(least, most)))
        return " ".join(rng.permutation([*words, *others]))

    examples = []
    for _ in range(count):
        first, second, third = rng.choice(corpus.WORDS, 3, replace=False)
        example = {"query": text((first, second), 0, 3)}
        example["positive"] = text((first, second), 2, 12)
        for i in range(negatives):
            example[f"negative_{i}"] = text((first, third), 2, 12)
        examples.append(example)
    return examples


def similar(count: int) -> list[dict]:
    """Pairs of texts with a label: the share of common words."""

    def label(example: dict[str, str]) -> float:
        first, second = (set(text.split()) for text in example.values())
        return len(first & second) / len(first | second)

    return [{**example, "label": label(example)} for example in records(count, 0, seed=5)]


def scored(count: int) -> list[dict]:
    """Queries with lists of three documents and the scores of a teacher, the positive's highest."""
    rng = np.random.default_rng(6)
    return [
        {"query": query, "documents": documents, "scores": [4.0, *rng.normal(size=2).tolist()]}
        for query, *documents in (example.values() for example in records(count, 2, seed=6))
    ]


def write(path: Path, examples: list[dict]) -> Path:
    """Write examples as JSON lines, into a new folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return path


def collection(folder: Path, examples: list[dict[str, str]]) -> Path:
    """Write a BEIR folder: the queries of examples, their positives, and all their documents."""
    return write_collection(
        folder,
        corpus={f"{name}-{i}": e[name] for i, e in enumerate(examples) for name in [*e][1:]},
        queries={f"q{i}": e["query"] for i, e in enumerate(examples)},
        qrels={f"q{i}": {f"positive-{i}": 1} for i in range(len(examples))},
    )


def write_collection(folder: Path, corpus: dict, queries: dict, qrels: dict) -> Path:
    """Write a BEIR folder of texts by id, and of grades by ids of query and document."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        write(folder / f"{name}.jsonl", [{"_id": i, "text": text} for i, text in texts.items()])
    write_qrels(folder / "qrels" / "test.tsv", qrels)
    return folder


def architecture(**changes) -> ModernBertConfig:
    """A model for the tokenizer of `corpus`: one layer, 320 ids."""
    tokens = {"bos_token_id": 316, "cls_token_id": 316, "eos_token_id": 317, "sep_token_id": 317}
    small = {"vocab_size": 320, "num_hidden_layers": 1, "pad_token_id": 319}
    return tiny.config(**small | tokens | changes)


def model(folder: Path, **changes) -> Path:
    """Write a bare encoder with random weights and a tokenizer."""
    config = architecture(**changes)
    rows = np.zeros((1, 8), np.int32)
    drawn = jax.jit(Encoder(config, Runtime()).init)(jax.random.key(0), rows, rows, rows)
    tokenizer = corpus.make_tokenizer()
    params = jax.tree.map(np.asarray, drawn["params"])
    checkpoint = convert.Checkpoint(
        config=config, params=params, head="none", files=tokenizer.files
    )
    convert.save(checkpoint, folder, "hf")
    return folder


def masked_lm(folder: Path) -> Path:
    """Write a masked language model with random weights and a tokenizer."""
    config, rows = architecture(), tiny.rows([[8]], 8)
    shapes = jax.eval_shape(MaskedLM(config).init, jax.random.key(0), *rows)["params"]
    params = tiny.randomised(shapes)
    files = corpus.make_tokenizer().files
    checkpoint = convert.Checkpoint(config=config, params=params, head="masked_lm", files=files)
    convert.save(checkpoint, folder, "hf")
    return folder


def dataset(examples: list[dict], name: str = "small") -> ExampleSet:
    """A data set of examples, as it is read from a file."""
    read = [
        TextExample(tuple(example.values()), (), f"f:{i}") for i, example in enumerate(examples)
    ]
    columns = max(examples, key=len)
    return ExampleSet(name, tuple(columns), read)


def objective_of(config: RetrievalConfig, shape: Shape, **changes) -> EmbeddingObjective:
    """The objective of a run, for microbatches of a shape."""
    loss = config.loss.loss(config.kind)
    if config.matryoshka_dims:
        loss = loss.matryoshka(config.matryoshka_dims)
    return EmbeddingObjective(
        config=config,
        model=architecture(**changes),
        loss_kind=loss,
        documents=shape.documents,
        steps_after=(Pooling(modes=("mean",), include_prompt=config.include_prompt),),
    )


def objective(config: RetrievalConfig, shape: Shape, **changes) -> tuple[EmbeddingObjective, dict]:
    """An objective and parameters that all matter."""
    made = objective_of(config, shape, **changes)
    params = jax.jit(made.init)(jax.random.key(0))
    encoder = jax.tree.map(np.asarray, tiny.randomised(params["encoder"]))
    return made, {**params, "encoder": encoder}


def config(**changes) -> RetrievalConfig:
    """A run with prompts of two lengths, dropout, and a scale that is learned."""
    values = {
        "kind": "embedding",
        "loss": LossConfig(learn_scale=True),
        "prompts": {"query": "ba ce: ", "document": "di: "},
        "include_prompt": False,
        "max_length": 48,
        "batch_examples": 8,
        "attention_dropout": 0.2,
        "embedding_dropout": 0.1,
    }
    return RetrievalConfig(**values | changes)


def batches(config: RetrievalConfig, examples: list[dict], shape: Shape, **changes) -> Batches:
    """The batches of one data set."""
    texts = tokenize(config, dataset(examples), corpus.make_tokenizer(), architecture())
    options = {"targets": texts.targets.shape[1], "columns": texts.columns} | changes
    return Batches([texts], shape, config.batch_examples, **options)


def members(*examples: int) -> Members:
    """Examples of the first data set."""
    return Members(0, np.array(examples))
