"""Training examples from files of every format and layout, and the messages about bad ones."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from modernbert_jax import UserError
from modernbert_jax.train.retrieval.data import read_examples


def jsonl(path, *rows):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)
    return path


def texts(path, *columns, **options):
    return [example.texts for example in read_examples(path, columns, **options).examples]


def problem(*paths, **options):
    with pytest.raises(UserError) as error:
        read_examples(paths, **options)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(str(paths[0].parent) + "/", "")


PAIR = {"query": "q", "positive": "p"}


def test_pairs_and_tuples_by_the_usual_names(tmp_path):
    path = jsonl(tmp_path / "pairs.jsonl.zst", {"positive": "p", "id": 7, "query": "q"}, PAIR)
    pairs = read_examples(path)
    assert pairs.name == "pairs" and pairs.columns == ("query", "positive")
    assert pairs.targets == "none" and len(pairs) == 2
    assert pairs[0] == (("q", "p"), (), f"{path}:1")
    negatives = {"negative_10": "c", "negative_2": "b", "negative": "a"}
    several = read_examples(
        jsonl(tmp_path / "a.jsonl", {"anchor": "q", "positive": "p"} | negatives)
    )
    assert several.columns == ("anchor", "positive", "negative", "negative_2", "negative_10")
    assert several[0].texts == ("q", "p", "a", "b", "c")


def test_the_first_examples_alone(tmp_path):
    """Later rows are not looked at; a row with several positives is several examples."""
    rows = [{"query": "q", "positive": ["a", "b", "c"]}, {"query": ""}]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    assert texts(path, most=2) == [("q", "a"), ("q", "b")] and len(texts(path, most=3)) == 3


def test_lists_of_negatives_and_of_positives(tmp_path):
    rows = [PAIR | {"negatives": ["a", "b"]}, PAIR | {"negatives": []}]
    examples = read_examples(jsonl(tmp_path / "a.jsonl", *rows))
    assert [e.texts for e in examples.examples] == [("q", "p", "a", "b"), ("q", "p")]
    assert examples.most_texts == 4 and examples.column(3) == examples.column(9) == "negatives"
    path = jsonl(tmp_path / "b.jsonl", {"query": "q", "positive": ["p", "r"], "negative": "n"})
    assert texts(path) == [("q", "p", "n"), ("q", "r", "n")]
    assert texts(path, "query", "positive") == [("q", "p"), ("q", "r")]


@pytest.mark.parametrize("target", ["scores", "labels"])
def test_scored_lists(tmp_path, target):
    row = {"query": "q", "documents": ["a", "b", "c"], target: [0.5, -1, 2]}
    examples = read_examples(jsonl(tmp_path / "a.jsonl", row))
    assert examples.columns == ("query", "documents") and examples.targets == "scores"
    assert examples[0][:2] == (("q", "a", "b", "c"), (0.5, -1.0, 2.0))
    row = PAIR | {"negative": "n", "scores": [3, 1]}
    assert read_examples(jsonl(tmp_path / "b.jsonl", row))[0].target == (3.0, 1.0)
    row = PAIR | {"negative": "n", "score": 2}
    margin = read_examples(jsonl(tmp_path / "c.jsonl", row))
    assert margin[0].target == (2.0,) and margin.targets == "label"


def test_two_texts_with_a_label(tmp_path):
    (tmp_path / "a.csv").write_text("id,sentence1,sentence2,score\n1,a,b,0.25\n2,c,c,1\n")
    similar = read_examples(tmp_path / "a.csv")
    assert similar.columns == ("sentence1", "sentence2") and similar.targets == "label"
    assert [e[:2] for e in similar.examples] == [(("a", "b"), (0.25,)), (("c", "c"), (1.0,))]
    table = pa.Table.from_pylist([{"query": "q", "document": "d", "label": True}])
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(noted), tmp_path / "a.parquet")
    assert read_examples(tmp_path / "a.parquet")[0][:2] == (("q", "d"), (1.0,))
    assert read_examples(tmp_path / "a.parquet", ["document", "query"], "").targets == "none"


def test_columns_and_templates_in_the_given_order(tmp_path):
    row = {"title": "t", "body": "b", "ask": {"text": "q"}, "label": "x", "grade": 3}
    path = jsonl(tmp_path / "a.jsonl", row)
    examples = read_examples(path, ["ask.text", "{title}: {body}"], "grade")
    assert examples[0][:2] == (("q", "t: b"), (3.0,))
    assert texts(path, "title", "body", "ask.text", target="") == [("t", "b", "q")]


def test_text_in_brackets_is_a_list_only_where_lists_are(tmp_path):
    text = "[a] and [b]"
    assert texts(jsonl(tmp_path / "a.jsonl", {"query": "q", "positive": text})) == [("q", text)]
    (tmp_path / "a.csv").write_text('query,documents,scores\nq,"[""a"", ""b""]","[1, 0.5]"\n')
    example = read_examples(tmp_path / "a.csv")[0]
    assert example[:2] == (("q", "a", "b"), (1.0, 0.5))


def test_ids_are_replaced_by_their_texts(tmp_path):
    queries = jsonl(tmp_path / "queries.jsonl", {"_id": "1", "text": "q"}, {"_id": "2", "text": ""})
    (tmp_path / "collection.tsv").write_text("10\tten\n11\televen\n12\ttwelve\n")
    row = {"query_id": 1, "document_ids": [10, 12], "scores": [1.5, 0]}
    written = {"query_id": "1", "document_ids": "['10', '12']", "scores": "[1.5, 0]"}
    tables = {"queries": queries, "documents": tmp_path / "collection.tsv"}
    for n, values in enumerate((row, written)):
        examples = read_examples(jsonl(tmp_path / f"{n}.jsonl", values), **tables)
        assert examples.columns == ("query", "documents") and examples.targets == "scores"
        assert examples[0][:2] == (("q", "ten", "twelve"), (1.5, 0.0))
    path = jsonl(tmp_path / "a.jsonl", {"query": "which?", "positive": "11"})
    assert texts(path, documents=tmp_path / "collection.tsv") == [("which?", "eleven")]
    rows = [row | {"query_id": 2}, row, row | {"document_ids": [10, 99]}]
    rows.append(row | {"document_ids": [11, 11]})
    message = problem(jsonl(tmp_path / "bad.jsonl", *rows), **tables)
    assert "bad.jsonl:1: the text of id '2' is empty" in message
    assert "bad.jsonl:3: id '99' is not in collection.tsv" in message
    assert "bad.jsonl:4: a list has '11' more than once" in message


def test_all_problems_of_files_are_reported_together(tmp_path):
    rows = [
        PAIR | {"negative": "n"},
        {"query": " ", "positive": "p", "negative": "n"},
        {"query": "q", "positive": None, "negative": "n"},
        {"query": "p ", "positive": "p", "negative": "n"},
        PAIR,
    ]
    message = problem(jsonl(tmp_path / "a.jsonl", *rows), jsonl(tmp_path / "b.jsonl", PAIR, PAIR))
    assert "a.jsonl:2: 'query' is empty" in message and "a.jsonl:3: 'positive' is empty" in message
    assert "a.jsonl:4: 'positive' is equal to its query" in message
    assert "a.jsonl:5: has no 'negative'" in message and "(and 2 more like this)" in message


@pytest.mark.parametrize(
    ("row", "want"),
    [
        ({"query": "q", "documents": ["a", "b"], "scores": [1]}, "'scores' has 1 numbers, for 2"),
        ({"query": "q", "documents": ["a"], "scores": [float("inf")]}, "must be a finite number"),
        ({"query": "q", "documents": ["a", "b"], "scores": [1, None]}, "a value is missing"),
        ({"query": "q", "documents": ["a", " "], "scores": [1, 2]}, "'documents' is empty"),
        ({"query": "q", "documents": [], "scores": []}, "'documents' is empty"),
        ({"query": "q", "documents": ["a", "b"], "labels": [0, 0]}, "has no positive"),
        ({"query": "q", "positive": []}, "the query has no positive"),
        ({"query": "q", "positive": 1.5, "label": "yes"}, "'label' is 'yes'; it must be a finite"),
        ({"question": "q", "text": "t"}, "has the columns question, text; name those"),
        ({"query": "q", "documents": ["a"]}, "has the columns query, documents; name those"),
    ],
)
def test_bad_records(tmp_path, row, want):
    message = problem(jsonl(tmp_path / "a.jsonl", row))
    assert message.startswith("a.jsonl:1: ") and want in message


def test_unknown_columns(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", PAIR, PAIR)
    message = problem(path, columns=["query", "answer"])
    assert message.startswith("a.jsonl:1: has no 'answer'; it has query, positive (and 1 more")
    assert "has no 'grade'; it has query" in problem(path, target="grade")
    assert "name two or more" in problem(path, columns=["query"])
    assert "braces" in problem(path, columns=["query", "{positive!r}"])
    assert problem(jsonl(tmp_path / "empty.jsonl")) == "empty.jsonl: holds no records"


def test_folders(tmp_path):
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    jsonl(folder / "corpus.jsonl.zst", {"_id": "d1", "title": "T", "text": "one"})
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    jsonl(folder / "queries.jsonl", {"_id": "q1", "text": "which?"})
    judged = read_examples(folder / "qrels/test.tsv")
    assert judged.name == "set" and judged.columns == ("query", "positive")
    assert judged[0] == (("which?", "T one"), (), f"{folder}/qrels/test.tsv:2")
    assert "set/qrels: has no split 'train'; known: test" in problem(folder)
    jsonl(folder / "train.jsonl", {"query_id": "q1", "document_ids": ["d1"], "scores": [7]})
    assert read_examples(folder)[0][:2] == (("which?", "T one"), (7.0,))
    jsonl(folder / "train.jsonl", {"query": "text", "positive": "d1"})
    assert texts(folder) == [("text", "T one")]
    jsonl(
        folder / "train.jsonl",
        {"query": "text", "positive": "d1"},
        {"query": "text", "positive": "d9"},
    )
    assert "train.jsonl:2: id 'd9' is not in " in problem(folder)
    jsonl(folder / "train.jsonl", {"query": "text", "positive": "a whole abstract " * 100})
    assert "id 'a whole abstract" in problem(folder) and len(problem(folder)) < 300
