"""The commands on text: a tokenizer, packed rows, and what they refuse."""

import json

import corpus
from program import refused, run


def test_tokenizer_and_prepare(capsys, tmp_path):
    text = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    train = [
        "tokenizer",
        "train",
        "--input",
        text,
        "--vocab-size",
        320,
        "--output",
        tmp_path / "tok",
    ]
    assert run(capsys, *train)[:2] == (0, f"{tmp_path / 'tok'}: 320 ids\n")
    assert "exists; choose another place" in refused(capsys, *train)
    prepare = ["prepare", "--tokenizer", tmp_path / "tok", "--input", text, "--length", 64, 128]
    code, out, _ = run(capsys, *prepare, "--output", tmp_path / "data")
    assert code == 0 and "rows of 64 tokens" in out and "rows of 128 tokens" in out
    mixture = tmp_path / "mixture.toml"
    mixture.write_text('[components.web]\ninput = ["text.jsonl"]\nweight = 2\n')
    twice = ["--length", 64, "--length", 128, "--deduplicate", "--workers", 1]
    mixed = [*prepare[:3], "--mixture", mixture, *twice, "--output", tmp_path / "mixed"]
    code, out, _ = run(capsys, *mixed)
    assert code == 0 and "web: packed" in out and "rows of 64" in out and "rows of 128" in out
    both = [*prepare, "--mixture", mixture, "--output", tmp_path / "both"]
    assert "needs either --input or --mixture" in refused(capsys, *both)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    bad = [*prepare[:4], tmp_path / "*.*", "--output", tmp_path / "data2"]
    assert "bad.txt: not UTF-8 at byte 0" in refused(capsys, *bad)
    assert not (tmp_path / "data2").exists()
    code, out, err = run(capsys, *bad, "--on-error", "skip")
    assert code == 0 and "bad.txt: skipped 1 document: not UTF-8" in err
    manifest = json.loads((tmp_path / "data2" / "manifest.json").read_text())
    skipped = [s["skipped"] for s in manifest["components"]["default"]["sources"]]
    assert {"not UTF-8": 1} in skipped
    small = ["pretrain", "nano", "--data", tmp_path / "data", "--model.vocab-size", 300]
    small += ["--model.pad-token-id", 2, "--output", tmp_path / "run"]
    assert "pass --model.vocab-size 320" in refused(capsys, *small)
    assert "has no rows of length 1024, only of 64, 128" in refused(
        capsys, "pretrain", "nano", "--data", tmp_path / "data", "--output", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()
