"""Fingerprints: equal content is equal, wherever it is, and every other content is not."""

import ml_dtypes
import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.io import fingerprint


def test_names_and_places_do_not_matter(tmp_path):
    for folder in ("a", "b [2]"):
        (tmp_path / folder).mkdir()
        for i, name in enumerate("xy"):
            (tmp_path / folder / f"{folder[0]}{name}.jsonl").write_text(f"line {i}\n")
    first, second = (fingerprint.of_paths([tmp_path / f / "*.jsonl"]) for f in ("a", "b [2]"))
    assert first == second == fingerprint.of_paths([tmp_path / "a"])
    assert first == fingerprint.of_paths([f"file://{tmp_path}/a/ax.jsonl", tmp_path / "a/ay.jsonl"])
    assert first != fingerprint.of_paths([tmp_path / "a/ay.jsonl", tmp_path / "a/ax.jsonl"])
    (tmp_path / "a" / "ay.jsonl").write_text("line 2\n")
    assert first != fingerprint.of_paths([tmp_path / "a"])
    with pytest.raises(UserError, match="none: no such file"):
        fingerprint.of_paths([tmp_path / "none"])


def test_of_large_files_blocks_are_hashed(tmp_path, monkeypatch):
    """The first and the last included, and the size."""
    monkeypatch.setattr(fingerprint, "WHOLE", 1000)
    monkeypatch.setattr(fingerprint, "BLOCK", 10)
    monkeypatch.setattr(fingerprint, "BLOCKS", 5)
    content = np.random.default_rng(0).integers(0, 255, 1001).astype(np.uint8)

    def of(content):
        (tmp_path / "file").write_bytes(content.tobytes())
        of_array = fingerprint.of_arrays({"x": content})
        return fingerprint.of_file(tmp_path / "file"), of_array

    plain = of(content)
    for at, seen in ((0, True), (1000, True), (248, True), (990, False), (500, True), (100, False)):
        changed = content.copy()
        changed[at] ^= 1
        assert [a != b for a, b in zip(of(changed), plain, strict=True)] == [seen] * 2
    assert of(content[:-1])[0] != plain[0] and of(np.append(content, 0))[0] != plain[0]


def test_arrays(monkeypatch):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = fingerprint.of_arrays({"a": x, "b": x.astype(ml_dtypes.bfloat16)})
    assert plain == fingerprint.of_arrays({"a": np.asfortranarray(x), "b": x.astype("bfloat16")})
    changed = x.copy()
    changed[1, 2] = np.nextafter(changed[1, 2], 9)
    for a, b in ((x, x), (changed, x.astype("bfloat16")), (x.T, x.astype("bfloat16"))):
        assert fingerprint.of_arrays({"a": a, "b": b}) != plain
    assert fingerprint.of_arrays({"b": x, "a": x.astype("bfloat16")}) != plain
    assert fingerprint.of_arrays({"a": np.float32(1), "e": np.zeros((0, 3))})
