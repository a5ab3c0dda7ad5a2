"""Data sets that are made from text."""

import json

import pytest

from modernbert_jax import UserError, cli
from modernbert_jax.train.bench.retrieval import data, go_sources
from modernbert_jax.train.retrieval.data import read_examples

SOURCE = """\
// Copyright nobody.

package main

// twice doubles a number, and says so
// in two lines.
//
//go:noinline
func twice(x struct{ n int }) interface{} {
	s := "}" + `
}
` // }
	return s[len(s)-1] + '{' + x.n
}

// apart is not directly above.

func apart() int {
	return 1
}

// Name of a method with a receiver.
func (r *reader[T]) Name(
	a, b int,
) (n int, err error) {
	/* ) */
	return
}

// declared elsewhere, in assembly
func Assembly(x int)

// short is one line
func short() { return }
"""


def test_functions_have_their_comment_and_whole_body():
    first, second = go_sources.functions(SOURCE)
    assert first.name == "twice"
    assert first.comment == "twice doubles a number, and says so\nin two lines."
    assert first.code.startswith("func twice(x struct") and first.code.endswith("+ x.n\n}")
    assert second.name == "Name" and second.code.endswith("/* ) */\n\treturn\n}")


@pytest.fixture
def science(tmp_path):
    words = "lorem ipsum dolor sit amet consectetur"
    rows = [
        {"id": f"p{i}", "text": f"Title {words} {i}.\n\nAbstract {words} {i}."} for i in range(40)
    ]
    rows += [{"id": "short", "text": "Two words.\n\nAbstract of enough words to stay."}]
    rows += [{"id": f"same{i}", "text": f"Title {words} x{i}.\n\n{words}"} for i in range(2)]
    path = tmp_path / "science.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def judgements(folder, split):
    _, *rows = (folder / "qrels" / f"{split}.tsv").read_text().splitlines()
    return [row.split("\t") for row in rows]


def test_a_folder_holds_disjoint_splits_whatever_the_order(science, tmp_path, capsys):
    command = ["bench", "retrieval-data", "titles", "--input", str(science)]
    command += ["--dev", "5", "--test", "10", "--output"]
    assert cli.main([*command, str(tmp_path / "first")]) == 0
    assert "40 documents" in capsys.readouterr().out
    science.write_text("".join(reversed(science.read_text().splitlines(keepends=True))))
    assert cli.main([*command, str(tmp_path / "second")]) == 0
    first, second = tmp_path / "first", tmp_path / "second"
    counts = {"train": 25, "dev": 5, "test": 10}
    for split, count in counts.items():
        assert len(judgements(first, split)) == count
        assert sorted(judgements(first, split)) == sorted(judgements(second, split))
    ids = [row[0] for split in counts for row in judgements(first, split)]
    assert len(set(ids)) == 40 and not {"short", "same0", "same1"} & {*ids}
    corpus = {row["_id"]: row["text"] for row in lines(first / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in lines(first / "queries.jsonl")}
    train = read_examples(first)
    assert {*train.columns} == {"query", "positive"}
    pairs = {example.texts for example in train.examples}
    assert pairs == {(queries[q], corpus[d]) for q, d, _ in judgements(first, "train")}


def test_the_name_of_a_function_is_left_out_of_its_comment(tmp_path):
    path = tmp_path / "code.jsonl"
    path.write_text(json.dumps({"id": "main.go", "text": SOURCE}))
    made = data.functions([path])
    assert made.documents["main.go:twice"].startswith("doubles a number")
    assert made.pairs[1].query.startswith("func (r *reader[T]) Name(")


def test_questions_keep_their_own_test_split(tmp_path):
    def write(name, *rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("corpus.jsonl", {"_id": "0", "text": "A passage."}, {"_id": "1", "text": "Another."})
    train = [{"query": f"which {i}", "positive": "0"} for i in range(4)]
    write("train.jsonl", *train)
    write("dev.jsonl", {"query": "what", "positive": "1"})
    made = data.splits(data.questions([tmp_path]).pairs, dev=1, test=3)
    assert [pair.query for pair in made["test"]] == ["what"]
    assert len(made["dev"]) == 1 and len(made["train"]) == 3
    sizes = {"dev": 1, "test": 1, "pairs": 3}
    assert data.make("questions", [tmp_path], tmp_path / "few", **sizes)["train"] == 2
    write("corpus.jsonl", *({"_id": str(i), "text": "A passage."} for i in range(5)))
    counts = data.make("questions", [tmp_path], tmp_path / "two", **sizes)
    assert counts == {"documents": 2, "train": 2, "dev": 1, "test": 1}
    write("dev.jsonl", {"query": "what", "positive": "2"})
    write("corpus.jsonl", {"_id": "0", "text": "A passage."})
    with pytest.raises(UserError, match=r"dev.jsonl:1: positive '2' is not in the corpus"):
        data.questions([tmp_path])


def test_too_few_pairs_are_refused(science, tmp_path):
    with pytest.raises(UserError, match="40 pairs do not suffice for 500 in dev"):
        data.make("titles", [science], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_union_has_the_splits_and_the_texts_of_its_parts(science, tmp_path):
    sizes = {"dev": 5, "test": 10}
    data.make("titles", [science], tmp_path / "one", **sizes)
    data.make("titles", [science], tmp_path / "two", **sizes)
    counts = data.make("union", [tmp_path / "one", tmp_path / "two"], tmp_path / "both", **sizes)
    assert counts == {"documents": 80, "train": 50, "dev": 10, "test": 20}
    own, other = judgements(tmp_path / "both", "test"), judgements(tmp_path / "one", "test")
    assert {row[1] for row in own} >= {f"one/{row[1]}" for row in other}
    with pytest.raises(UserError, match="--pairs is for sources"):
        data.make("union", [tmp_path / "one"], tmp_path / "few", pairs=3)
    names = [row[0].partition("/")[0] for row in judgements(tmp_path / "both", "train")]
    assert names.count("one") == 25 and names != sorted(names)  # mixed
