"""The report on a prepared folder: consistent numbers, as JSON, tables and a plot."""

import json

import corpus
import numpy as np
import pytest
from matplotlib import image

from modernbert_jax import UserError, cli
from modernbert_jax.train.corpus import plot, report
from modernbert_jax.train.corpus.components import CorpusComponent
from modernbert_jax.train.corpus.prepare import prepare
from modernbert_jax.train.corpus.sources import Corpus
from modernbert_jax.train.rows.prepared import Prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared folder of two components, one with special tokens in its text."""
    place = tmp_path_factory.mktemp("report")
    texts = corpus.texts()
    one = Corpus([corpus.write_jsonl(place / "one.jsonl", texts[:80])])
    two = Corpus([corpus.write_jsonl(place / "two.jsonl", [f"[MASK] {t}" for t in texts[80:]])])
    parts = {
        "one": CorpusComponent(corpus=one, weight=1.0, epochs=2.0),
        "two": CorpusComponent(corpus=two, weight=3.0),
    }
    prepare(parts, corpus.make_tokenizer(), place / "data", [64, 128], validation=0.1)
    return place / "data"


def test_facts_add_up(folder):
    data = Prepared(folder)
    result = report.facts(data)
    assert json.loads(json.dumps(result)) == result
    one, two = result["components"]["one"], result["components"]["two"]
    assert (one["documents"], two["documents"], result["documents"]) == (80, 40, 120)
    assert one["tokens"] + two["tokens"] == result["tokens"]
    assert one["share"] == one["tokens"] / result["tokens"]
    assert (one["special"], two["special"]) == (0, 40)
    assert two["special_rate"] == 40 / two["tokens"] and one["unknown_rate"] == 0
    for component in (one, two):
        assert sum(component["document_lengths"].values()) == component["documents"]
    for length in (64, 128):
        total = result["lengths"][str(length)]
        shares = [c["lengths"][str(length)]["share_in_training"] for c in (one, two)]
        assert shares == [0.25, 0.75]
        rows = [data.rows("train", length, name) for name in ("one", "two")]
        assert total["rows"] == sum(map(len, rows))
        real = sum((r[i]["segment_ids"] > 0).sum() for r in rows for i in range(len(r)))
        assert total["tokens"] == real
        assert total["efficiency"] == real / (total["rows"] * length)


def test_the_command(folder, tmp_path, capsys):
    assert cli.main(["data", str(folder), "--verify", "--plot", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert "120 documents" in out and "two" in out and "75.0%" in out
    assert image.imread(tmp_path / "a.png").shape[0] > 500
    assert cli.main(["data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report.facts(Prepared(folder))
    assert cli.main(["data", str(tmp_path)]) == 2
    assert "not a prepared corpus" in capsys.readouterr().err


def test_verify_names_a_damaged_file(folder, capsys):
    file = next((folder / "two" / "64").glob("train*"))
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert cli.main(["data", str(folder), "--verify"]) == 2
        assert f"{file}: damaged" in capsys.readouterr().err
    finally:
        file.write_bytes(content)
    Prepared(folder).check([64])


def test_a_picture_of_one_component_and_one_of_many(tmp_path):
    lengths = {str(2**i): 10 for i in range(4, 20)}
    component = {
        "documents": 160,
        "tokens": 5_000,
        "share": 0.1,
        "unknown_rate": 1e-4,
        "special_rate": 0.0,
        "document_lengths": lengths,
        "lengths": {"1024": {"share_in_training": 0.1, "train": {"efficiency": 0.999}}},
    }
    for count in (1, 10):
        result = {
            "folder": "corpus",
            "documents": 160 * count,
            "tokens": 5_000 * count,
            "lengths": {"1024": {"rows": 5, "efficiency": 0.999}},
            "components": {f"part-{i}": component for i in range(count)},
        }
        path = plot.plot(result, tmp_path / f"{count}.png")
        pixels = image.imread(path)[..., :3]
        assert (np.ptp(pixels, axis=-1) > 0.2).mean() > 0.02, "something is drawn in color"


@pytest.mark.parametrize(
    ("number", "text"), [(3, "3"), (12_345, "12.3 k"), (2e12, "2 T"), (999, "999"), (1e6, "1 M")]
)
def test_short_numbers(number, text):
    assert plot.short(number) == text


def test_a_component_without_weight_beside_one_with(tmp_path):
    one = Corpus([corpus.write_jsonl(tmp_path / "one.jsonl", corpus.texts(20))])
    two = Corpus([corpus.write_jsonl(tmp_path / "two.jsonl", corpus.texts(30)[20:])])
    parts = {"one": CorpusComponent(corpus=one, weight=1.0), "two": CorpusComponent(corpus=two)}
    with pytest.raises(UserError, match="two has no weight"):
        prepare(parts, corpus.make_tokenizer(), tmp_path / "data", [64])
        Prepared(tmp_path / "data").order(64)
