"""Search by an index of tokens against search in everything; resuming, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.scoring import LateTopK, late_pairs
from modernbert_jax.train.retrieval.search import token_index
from modernbert_jax.train.retrieval.search.config import Searching

pytest.importorskip("voyager")

RNG = np.random.default_rng(0)


def unit(count):
    vectors = RNG.standard_normal((count, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


DOCUMENTS = [unit(int(n)) for n in RNG.integers(0, 6, 90)]
DOCUMENTS[7] = DOCUMENTS[40]  # equal scores
QUERIES = {f"q{i}": unit(4) for i in range(6)}


class Model:
    """A late-interaction model whose texts are their vectors."""

    name, similarity = "model", "MaxSim"

    def encode(self, texts, side):
        return [*texts]

    def pairs(self, queries, documents):
        return late_pairs(queries, documents)


@dataclasses.dataclass
class Corpus:
    """Vectors of documents in parts of ten; `fails` is a part that cannot be read."""

    fails: int = -1
    count = len(DOCUMENTS)

    def blocks(self, first=0):
        for part in range(first, 9):
            if part == self.fails:
                raise KeyboardInterrupt
            yield DOCUMENTS[10 * part : 10 * part + 10]

    def take(self, numbers):
        return [DOCUMENTS[i] for i in numbers]

    def ids(self, numbers):
        return [f"d{i}" for i in numbers]


def options(**changes):
    return Searching(model="model", corpus="c", output=Path("x"), index=Path("i"), **changes)


def search(path, corpus=None, **changes):
    made = options(**changes)
    facts = {"model": "digest"}
    return token_index.search_index(path, made, facts, Model(), corpus or Corpus(), QUERIES, 10)


def test_with_all_tokens_as_neighbours_it_finds_what_is_in_everything(tmp_path):
    run = search(tmp_path / "index", index_neighbours=1000)
    exact = LateTopK([*QUERIES.values()], 10)
    exact.add(DOCUMENTS)
    scores, numbers = exact.results()
    empty = {f"d{i}" for i, document in enumerate(DOCUMENTS) if not len(document)}
    for query, own, of_query in zip(QUERIES, numbers, scores, strict=True):
        wanted = {f"d{i}": s for i, s in zip(own, of_query, strict=True) if f"d{i}" not in empty}
        found = run[query]
        assert [*found][: len(wanted)] == [*wanted]
        assert [*found.values()][: len(wanted)] == pytest.approx([*wanted.values()], abs=1e-5)
    few = search(tmp_path / "index", index_neighbours=2)  # from the file
    assert all(len(few[query]) <= 8 for query in QUERIES)


def test_building_resumes_and_other_settings_are_refused(tmp_path, monkeypatch):
    import voyager

    monkeypatch.setattr(token_index, "SAVED", 0.0)
    monkeypatch.setattr(token_index, "ADDED", 7)  # some parts are saved in the middle
    whole = search(tmp_path / "whole", index_neighbours=1000)
    path, known = tmp_path / "index", 0
    for fails in (0, 5, 5, 8):
        with pytest.raises(KeyboardInterrupt):
            search(path, Corpus(fails=fails), index_neighbours=1000)
        if fails:
            index = voyager.Index.load(str(path))
            assert sorted(index.ids) == [*range(index.num_elements)]
            assert known <= index.num_elements <= sum(map(len, DOCUMENTS[: 10 * fails]))
            known = index.num_elements
    assert known and not path.with_name("index.npy").exists()
    resumed = search(path, index_neighbours=1000)
    assert {q: [*scores] for q, scores in resumed.items()} == {q: [*s] for q, s in whole.items()}
    assert search(path, Corpus(fails=0), index_neighbours=1000) == resumed  # it is complete
    with pytest.raises(UserError, match=r"other settings \(.*links"):
        search(path, index_links=16)
    finished = path.stat().st_mtime_ns
    search(path)
    assert path.stat().st_mtime_ns == finished
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"index: cannot be read .*; remove it"):
        search(path)
