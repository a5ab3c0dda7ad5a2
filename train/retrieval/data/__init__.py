"""Examples of retrieval, collections to search, and runs, from files. No jax in here.

examples = read_examples("train.jsonl")                       # query, positive, negatives
examples = read_examples("kd.jsonl", queries="queries.tsv", documents="collection.tsv")
collection = read_collection("scifact", split="test")
for identifier, text in collection.corpus(): ...
"""

from .beir import Collection, read_collection, read_collections
from .examples import ExampleSet, Targets, TextExample
from .files import read_examples
from .ids import read_texts, texts
from .runs import Qrels, Run, read_qrels, read_run, write_qrels, write_run

__all__ = [
    "Collection",
    "ExampleSet",
    "Qrels",
    "Run",
    "Targets",
    "TextExample",
    "read_collection",
    "read_collections",
    "read_examples",
    "read_qrels",
    "read_run",
    "read_texts",
    "texts",
    "write_qrels",
    "write_run",
]
