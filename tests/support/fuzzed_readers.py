"""Every reader, with sound files for it, which `fuzzing` changes.

Libraries are imported where they are used, so that a process loads only its own.
"""

import dataclasses
import functools
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MDS = Path(__file__).parents[1] / "fixtures" / "mds"


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader, and sound files for it."""

    sound: Callable[[], Mapping[str, bytes]]
    """Contents of files by name."""
    read: Callable[[Path], Any]
    """Reads the folder with the files; raises `UserError` at most."""
    mutable: tuple[str, ...]
    """Files of which one is changed."""
    share: int = 100
    """Weight among all readers."""
    alone: bool = False
    """Whether a library beneath it can end the process."""


ROWS = [
    {
        "id": "a",
        "text": "one two",
        "label": "x",
        "tokens": ["EU", "rejects"],
        "ner_tags": ["O"] * 2,
    },
    {"id": "b", "text": "three", "label": "y", "tokens": ["a"], "ner_tags": ["B-PER"]},
    {"id": 3, "text": "é😀 four", "label": "x", "tokens": ["b", "c"], "ner_tags": ["O", "O"]},
]
SQUAD = {
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "a b c",
                    "qas": [
                        {
                            "id": "1",
                            "question": "which?",
                            "answers": [{"text": "b", "answer_start": 2}],
                        }
                    ],
                }
            ],
        }
    ]
}


@functools.cache
def tokenizer():
    """A small tokenizer."""
    from modernbert_jax.tokenizer import train

    return train(["hello world, hello there", "a b c d the cat's é😀 12"] * 5, 320)


def _lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def _examples(kind: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from modernbert_jax.train import tasks

        records = tasks.read(sorted(folder.iterdir()))
        task = tasks.TASKS[kind]().with_labels(records)
        task.examples(records, tokenizer())

    return read


def _arrow(form: str) -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([row | {"id": str(row["id"])} for row in ROWS * 3])
    table = table.append_column("input_ids", pa.array([[1, 2, 3]] * 9))
    sink = io.BytesIO()
    if form == "parquet":
        pq.write_table(table, sink, row_group_size=4)
    else:
        new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    return {f"a.{'parquet' if form == 'parquet' else 'arrow'}": sink.getvalue()}


def _corpus(folder: Path) -> None:
    from modernbert_jax.train.corpus.sources import Corpus, Piece, documents, fetched

    texts = Corpus.find([str(folder)])
    for source in texts.sources:
        with fetched(source) as path:
            for document in documents(Piece(source=source), path, "text", "stop", {}):
                assert len(document) > 0


def _mds(name: str) -> Callable[[], dict[str, bytes]]:
    return lambda: {p.name: p.read_bytes() for p in sorted((MDS / name).iterdir())}


def _mixture(folder: Path) -> None:
    from modernbert_jax.train.corpus import components

    components.read_mixture(folder / "mixture.toml")


def _tokenizer(folder: Path) -> None:
    from modernbert_jax import alignment
    from modernbert_jax.tokenizer import Tokenizer

    read = Tokenizer.load(folder)
    assert len(read.unused_ids) <= read.vocab_size and len(read.special_ids) < 100
    ids = read.encode(["The cat's 12 é😀 [MASK] \n", "a" * 300], max_length=16)
    read.encode_pairs([("a b", "c")])
    read.decode(ids[0])
    alignment.words(read, [["a", "b"]])
    alignment.pieces(read, ["a b"])


def _config():
    import tiny

    return tiny.config(
        vocab_size=24,
        hidden_size=8,
        intermediate_size=6,
        num_hidden_layers=4,
        num_attention_heads=2,
    )


def _weights() -> dict[str, Any]:
    import hf_directory

    return hf_directory.weights(hf_directory.shapes(_config()), hf_directory.mixed)


def _hf() -> dict[str, bytes]:
    import hf_directory

    labels = {"0": "a", "1": "b"}
    with tempfile.TemporaryDirectory() as folder:
        hf_directory.write(Path(folder), _weights(), _config(), id2label=labels)
        return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def _modules() -> dict[str, bytes]:
    name = "sentence_transformers.models"
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": f"{name}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{name}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{name}.Normalize"},
    ]
    settings = {
        "prompts": {"query": "q: "},
        "default_prompt_name": "query",
        "similarity_fn_name": "cosine",
        "model_type": "SentenceTransformer",
    }
    files = {
        "modules.json": listed,
        "config_sentence_transformers.json": settings,
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
    }
    return {**_hf(), **{name: json.dumps(value).encode() for name, value in files.items()}}


def _load(folder: Path) -> None:
    from modernbert_jax import convert

    json.dumps(convert.inspect(folder), ensure_ascii=False).encode()
    convert.load(folder)


def _pickle(folder: Path) -> None:
    from modernbert_jax.convert.torch_files import pickles

    repr(pickles.read((folder / "data.pkl").read_bytes()))


def _one_pickle() -> dict[str, bytes]:
    import torch_archive

    return {"data.pkl": torch_archive.ONE}


def _bin() -> dict[str, bytes]:
    from modernbert_jax.convert.torch_files import writer

    with tempfile.TemporaryDirectory() as folder:
        writer.write(Path(folder) / "x.bin", _weights())
        content = (Path(folder) / "x.bin").read_bytes()
    return {"config.json": _hf()["config.json"], "pytorch_model.bin": content}


def _json(folder: Path) -> None:
    from modernbert_jax.io.json_reader import read_json

    json.dumps(read_json(folder / "a.json"), ensure_ascii=False).encode()


def _task(folder: Path) -> None:
    from modernbert_jax.io.json_reader import read_json
    from modernbert_jax.train.finetune import config

    config.from_json(read_json(folder / "config.json"), "config.json")


def _finetune_config() -> dict[str, bytes]:
    from modernbert_jax.train.finetune import config
    from modernbert_jax.train.tasks import Classification

    value = config.to_json(config.FinetuneConfig(task=Classification(labels=("a", "b"))))
    return {"config.json": json.dumps(value).encode()}


def _rows() -> dict[str, bytes]:
    import rows

    with tempfile.TemporaryDirectory() as folder:
        path = rows.prepared(Path(folder) / "p", {"a": 20, "b": 10}, validation=1)
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def _prepared(folder: Path) -> None:
    from modernbert_jax.train.rows.prepared import Prepared

    data = Prepared(folder)
    for length in data.lengths():
        data.order(length)


def _adapters() -> dict[str, bytes]:
    config = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "target_modules": ["Wqkv", "Wo"],
        "modules_to_save": ["classifier"],
        "bias": "none",
    }
    return {"adapter_config.json": json.dumps(config).encode()}


def _peft(folder: Path) -> None:
    from modernbert_jax.convert import names
    from modernbert_jax.train.engine import peft

    peft.load(folder, names.table(_config(), "sequence_classification", 2))


PAIRS = [
    {"query": "a", "documents": ["b", "c"], "scores": [1.5, -2]},
    {"query": "d", "documents": ["e"], "scores": [0]},
    {"query": "f", "documents": ["g", "é😀"], "scores": [1, 2]},
]
TUPLES = b'query,positive,negatives\na,b,"[""c"", ""d""]"\ne,f,"[""g""]"\nh,i,"[\'j\', \'k\']"\n'
QRELS = b"query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"
RUN = b"q1 Q0 d1 1 2.5 x\nq1 Q0 d2 2 -1e-3 x\nq2 Q0 d1 1 7 x\n"


def _json_lines(*rows: Mapping[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _collection() -> dict[str, bytes]:
    texts = [{"_id": f"{side}{i}", "text": f"text {side} {i}"} for side in "dq" for i in (1, 2)]
    return {
        "corpus.jsonl": _json_lines(*(row | {"title": "t"} for row in texts[:2])),
        "queries.jsonl": _json_lines(*texts[2:]),
        "qrels/test.tsv": QRELS,
        "train.jsonl": _json_lines({"query_id": "q1", "document_ids": ["d1"], "scores": [1]}),
        "run.txt": RUN,
        "texts.tsv": b"1\tone\n2\ttwo\n",
    }


def _retrieval(folder: Path) -> None:
    from modernbert_jax.train.retrieval import data
    from modernbert_jax.train.retrieval.data.examples import TextExample

    for example in data.read_examples(sorted(folder.iterdir())).examples:
        assert isinstance(example, TextExample) and all(map(str.strip, example.texts))


def _beir(folder: Path) -> None:
    from modernbert_jax.train.retrieval import data

    data.read_run(folder / "run.txt")
    data.read_texts(folder / "texts.tsv")
    collection = data.read_collection(folder)
    assert len(list(collection.corpus())) == collection.check()
    assert len(data.read_examples(folder)) and len(data.read_examples(folder / "qrels/test.tsv"))


def _device_tuning() -> dict[str, bytes]:
    from modernbert_jax.attention import tuning

    return {"a.json": (Path(tuning.__file__).parent / "tuning.json").read_bytes()}


def _tuning(folder: Path) -> None:
    from modernbert_jax.attention import tuning
    from modernbert_jax.io.json_reader import read_json

    tuning.parse(read_json(folder / "a.json"), "a.json")


TABLE = b"id,text,label\na,one two,x\nb,three,y\nc,four,x\n"
CONLL = b"-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\n"
TOML = b"""[components.a]
input = "*.toml"
weight = 0.5
[components.b]
input = ["*.toml"]
epochs = 2
"""

READERS: dict[str, Reader] = {
    "json": Reader(lambda: {"a.json": json.dumps(SQUAD).encode()}, _json, ("a.json",), 150),
    "jsonl": Reader(lambda: {"a.jsonl": _lines()}, _examples("classification"), ("a.jsonl",), 150),
    "tokens": Reader(lambda: {"a.jsonl": _lines()}, _examples("tokens"), ("a.jsonl",)),
    "csv": Reader(lambda: {"a.csv": TABLE}, _examples("classification"), ("a.csv",)),
    "tsv": Reader(
        lambda: {"a.tsv": TABLE.replace(b",", b"\t")}, _examples("classification"), ("a.tsv",)
    ),
    "conll": Reader(lambda: {"a.conll": CONLL}, _examples("tokens"), ("a.conll",)),
    "squad": Reader(
        lambda: {"a.json": json.dumps(SQUAD).encode()}, _examples("questions"), ("a.json",)
    ),
    "corpus": Reader(
        lambda: {"a.jsonl": _lines(), "b.json": json.dumps(ROWS).encode(), "c.csv": TABLE},
        _corpus,
        ("a.jsonl", "b.json", "c.csv"),
    ),
    "scored lists": Reader(lambda: {"a.jsonl": _json_lines(*PAIRS)}, _retrieval, ("a.jsonl",)),
    "tuples": Reader(lambda: {"a.csv": TUPLES}, _retrieval, ("a.csv",)),
    "collection": Reader(
        _collection,
        _beir,
        ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "train.jsonl", "run.txt", "texts.tsv"),
    ),
    "mds": Reader(_mds("text_raw"), _corpus, ("index.json", "shard.00000.mds")),
    "mds zstd": Reader(_mds("ids_uint16"), _corpus, ("index.json", "shard.00000.mds.zstd")),
    "mixture": Reader(lambda: {"mixture.toml": TOML}, _mixture, ("mixture.toml",), 50),
    "finetune config": Reader(_finetune_config, _task, ("config.json",)),
    "adapters": Reader(_adapters, _peft, ("adapter_config.json",), 50),
    "tuning": Reader(_device_tuning, _tuning, ("a.json",), 50),
    "hf": Reader(_hf, _load, ("config.json", "model.safetensors")),
    "bin": Reader(_bin, _load, ("pytorch_model.bin",)),
    "modules": Reader(
        _modules,
        _load,
        (
            "modules.json",
            "config_sentence_transformers.json",
            "sentence_bert_config.json",
            "1_Pooling/config.json",
        ),
    ),
    "prepared": Reader(_rows, _prepared, ("manifest.json",)),
    "pickle": Reader(_one_pickle, _pickle, ("data.pkl",), 150),
    "parquet corpus": Reader(lambda: _arrow("parquet"), _corpus, ("a.parquet",), 50, alone=True),
    "parquet": Reader(
        lambda: _arrow("parquet"), _examples("classification"), ("a.parquet",), 50, alone=True
    ),
    "arrow file": Reader(
        lambda: _arrow("file"), _examples("classification"), ("a.arrow",), 50, alone=True
    ),
    "arrow stream": Reader(
        lambda: _arrow("stream"), _examples("tokens"), ("a.arrow",), 50, alone=True
    ),
    "tokenizer": Reader(
        lambda: dict(tokenizer().files),
        _tokenizer,
        ("tokenizer.json", "tokenizer.json", "tokenizer.json", "tokenizer_config.json"),
        10,
        alone=True,
    ),
}
"""Readers by name."""
