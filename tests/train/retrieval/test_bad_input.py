"""Wrong data from the command line: all problems of all files in one line; nothing is written."""

import models
import program
import pytest
from pairs import write

MODELS = {
    "embedding": "mean",
    "late-interaction": "base",
    "reranker": "base",
    "sparse": "masked_lm",
}
"""What a run of each kind starts from."""

PAIR = {"query": "who is there", "positive": "hello world"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name in {*MODELS.values(), "sparse", "colbert", "reranker"}:
        models.write(name, folder / name)
    write(folder / "good.jsonl", [PAIR, {"query": "a b", "positive": "c d"}])
    write(folder / "corpus.jsonl", [{"_id": "d1", "text": "a b c"}, {"_id": "d2", "text": "d"}])
    write(folder / "queries.jsonl", [{"_id": "q1", "text": "a"}])
    return folder


@pytest.fixture
def refused(folder, tmp_path, capsys):
    """The line of a command that fails and leaves nothing."""

    def run(command, model, *words):
        """Train a kind of model, or run another command with a model."""
        training = command == "finetune"
        output = tmp_path / ("out" if training else "out.jsonl")
        path = folder / (MODELS[model] if training else model)
        words = ("--model", model if model == "bm25" else path, *words, "--output", output)
        line = program.refused(capsys, command, *([model] if training else []), *words)
        assert not [*tmp_path.glob("out*")]
        return line

    return run


@pytest.mark.parametrize("kind", MODELS)
def test_training_names_the_problems_of_all_files_together(kind, folder, refused):
    bad = [
        {"query": " ", "positive": "p"},
        {"query": "q", "positive": None},
        {"query": "p", "positive": " p"},
        {"query": "q", "positive": []},
    ]
    lists = [
        {"query": "q", "documents": ["a", "b"], "scores": [1, float("nan")]},
        {"query": "q", "documents": ["a", "b"], "scores": [1]},
        {"query": "q", "documents": ["a", " "], "scores": [1, 2]},
    ]
    ids = [{"query": "q", "document_ids": [name], "scores": [1]} for name in ("d1", "d9")]
    judged = folder / "judged"
    for name in ("corpus", "queries"):
        (judged / "qrels").mkdir(parents=True, exist_ok=True)
        (judged / f"{name}.jsonl").write_bytes((folder / f"{name}.jsonl").read_bytes())
    (judged / "qrels/test.tsv").write_text("q1\td1\t1\nq1\tnowhere\t1\n")
    train = [write(folder / "bad.jsonl", bad), write(folder / "lists.jsonl", lists)]
    validation = write(folder / "dev.jsonl", bad[:1])
    line = refused(
        *("finetune", kind, "--train", *train, "--validation", validation),
        *("--evaluation", judged),
    )
    for part in (
        "bad.jsonl:1: 'query' is empty",
        "bad.jsonl:2: 'positive' is empty",
        "bad.jsonl:3: 'positive' is equal to its query",
        "bad.jsonl:4: ",
        "lists.jsonl:1: ",
        "lists.jsonl:2: 'scores' has 1 numbers, for 2 documents",
        "lists.jsonl:3: 'documents' is empty",
        "dev.jsonl:1: 'query' is empty",
        "'nowhere'",
    ):
        assert part in line, line
    write(folder / "ids.jsonl", ids)
    twice = write(folder / "twice.jsonl", [{"_id": "d1", "text": "a"}] * 2)
    line = refused("finetune", kind, "--train", folder / "ids.jsonl", "--documents", twice)
    assert "twice.jsonl:2: id 'd1' occurs before" in line and "id 'd9' is not in" in line


@pytest.mark.parametrize("kind", ["embedding", "late-interaction", "sparse"])
def test_in_batch_losses_need_two_examples(kind, folder, refused):
    line = refused("finetune", kind, "--train", folder / "good.jsonl", "--batch-examples", 1)
    assert "good: loss multiple-negatives-ranking" in line and "a batch of 1" in line


@pytest.mark.parametrize(
    ("kind", "words", "part"),
    [
        ("embedding", ("--matryoshka-dims", 64), "matryoshka_dims has 64; vectors have 32"),
        ("embedding", ("--loss.name", "distill-kl"), "distill-kl takes at least 3 columns"),
        ("late-interaction", ("--loss.name", "distill-kl"), "distill-kl takes at least 3 columns"),
        ("sparse", ("--loss.name", "margin-mse"), "margin-mse takes at least 3 columns"),
        ("sparse", ("--max-active-dims", 9999), "max_active_dims is 9,999; the vocabulary has 384"),
        ("sparse", ("--projection-dims", 8), "projection"),
        ("reranker", (), "takes a label of each"),
    ],
)
def test_what_does_not_fit_the_model_or_loss(kind, words, part, folder, refused):
    line = refused("finetune", kind, "--train", folder / "good.jsonl", *words)
    assert part in line, line


def test_documents_without_a_counted_token_are_named_together(folder, refused):
    rows = [PAIR, {"query": "a", "positive": "!"}, {"query": "b", "positive": "?"}]
    rows += [{"query": "c", "positive": "?"}]
    train = write(folder / "marks.jsonl", rows)
    words = ("--skiplist", "! ? [CLS] [SEP]", "--prompts", "document", "")
    line = refused("finetune", "late-interaction", "--train", train, *words)
    assert "marks.jsonl:2: '!' has no token whose vector counts" in line, line
    assert "marks.jsonl:3: '?' has no" in line and "(and 1 more like this)" in line


@pytest.mark.parametrize("model", ["colbert", "sparse", "bm25"])
def test_search_mine_and_evaluate(model, folder, refused):
    twice = [{"_id": "d1", "text": "a"}, {"_id": "d 2", "text": "a"}, {"_id": "d1", "text": "b"}]
    corpus = write(folder / "broken/corpus.jsonl", twice)
    void = write(folder / "void.jsonl", [{"_id": "q", "text": " "}, {"_id": "r", "text": ""}])
    line = refused("search", model, "--corpus", folder / "corpus.jsonl", "--queries", void)
    assert "'q' is empty" in line and "'r' is empty" in line
    line = refused("search", model, "--corpus", corpus, "--queries", folder / "queries.jsonl")
    assert "'d 2' is empty or has blanks" in line and "corpus.jsonl:3: id 'd1' occurs" in line
    data = write(folder / "mine.jsonl", [{"query": "", "positive": "a"}, {"query": "a"}])
    line = refused("mine", model, "--data", data)
    assert "mine.jsonl:1: 'query' is empty" in line and "mine.jsonl:2: has no 'positive'" in line
    line = refused("mine", model, "--data", folder / "good.jsonl", "--corpus", corpus)
    assert "occurs before" in line
    (folder / "broken/qrels").mkdir(exist_ok=True)
    (folder / "broken/qrels/test.tsv").write_text("q1\td1\tgood\nq1\td9\t1\nq7\td1\t1\n")
    write(folder / "broken/queries.jsonl", [{"_id": "q1", "text": "a"}])
    words = ("--task", "retrieval", "--data", folder / "broken")
    assert "test.tsv:1: 'good' must be a number" in refused("evaluate", model, *words)
    (folder / "broken/qrels/test.tsv").write_text("q1\td1\t1\nq1\td9\t1\n")
    line = refused("evaluate", model, *words)
    assert "'d9'" in line and "occurs before" in line


@pytest.mark.parametrize(
    ("model", "task", "rows", "parts"),
    [
        (
            "sparse",
            "sts",
            [{"sentence1": "a", "sentence2": " ", "score": 1}, {"sentence1": "a"}],
            ("x.jsonl:1: 'sentence2' is empty", "x.jsonl:2: "),
        ),
        (
            "colbert",
            "triplets",
            [PAIR, PAIR],
            ("triplets need a query, a positive and a negative",),
        ),
        (
            "reranker",
            "reranking",
            [
                {"query": "a", "document": "x", "label": 0},
                {"query": "b", "document": "x", "label": 1},
            ],
            ("x.jsonl:1: the query has no positive", "x.jsonl:2: the query has no negative"),
        ),
    ],
)
def test_evaluation_of_examples(model, task, rows, parts, folder, capsys):
    data = write(folder / "x.jsonl", rows)
    words = ("evaluate", "--model", folder / model, "--task", task, "--data", data)
    line = program.refused(capsys, *words)
    assert all(part in line for part in parts), line
