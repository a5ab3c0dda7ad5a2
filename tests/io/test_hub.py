"""Downloads from a fake hub."""

import huggingface_hub
import models
import pytest
from fake_hub import Hub
from huggingface_hub import errors

from modernbert_jax import ModernBert
from modernbert_jax.errors import UserError
from modernbert_jax.io import hub


@pytest.fixture
def fake(tmp_path, monkeypatch):
    fake_hub = Hub(tmp_path / "repository", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_hub)
    return fake_hub


def test_folders_come_along_and_copies_do_not(fake):
    models.write("dense", fake.source)
    for name in ("pytorch_model.bin", "onnx/model.json", "checkpoint-5/config.json", "run.py"):
        (fake.source / name).parent.mkdir(exist_ok=True)
        (fake.source / name).write_bytes(b"no")
    bert = ModernBert.from_pretrained("someone/dense", revision="v2")
    assert fake.asked == [("someone/dense", "v2")]
    assert bert.pipeline.layers[0].out_features == 20
    held = {p.relative_to(fake.cache).as_posix() for p in fake.cache.rglob("*") if p.is_file()}
    assert {"2_Dense/model.safetensors", "1_Pooling/config.json", "modules.json"} <= held
    assert not {n for n in held if n.endswith((".bin", ".py")) or "onnx" in n or "check" in n}


def test_pickled_weights_are_fetched_where_there_are_no_others(fake):
    models.write("base", fake.source)
    (fake.source / "model.safetensors").unlink()
    (fake.source / "pytorch_model.bin").write_bytes(b"no")
    assert (hub.download("someone/old") / "pytorch_model.bin").is_file()
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.LocalEntryNotFoundError("x"), "a/b is not in the cache, and the hub cannot be rea"),
        (ConnectionError("no network\nmore"), r"\(no network\)$"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_reasons(monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=message):
        hub.download("a/b")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.RevisionNotFoundError, "it has no revision 'v9'"),
        (errors.GatedRepoError, "it is gated: ask for access"),
        (errors.RepositoryNotFoundError, "there is no such model, or it is private"),
    ],
)
def test_answers_of_the_hub(monkeypatch, kind, message):
    def fail(*_, **__):
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=message):
        hub.download("a/b", "v9")


def test_offline_with_an_empty_cache_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="not in the cache"):
        hub.download("someone/something")


def test_offline_with_a_snapshot_in_the_cache(tmp_path, monkeypatch):
    commit = "0" * 40
    models.write("mean", tmp_path / "models--someone--mean" / "snapshots" / commit)
    (tmp_path / "models--someone--mean" / "refs").mkdir()
    (tmp_path / "models--someone--mean" / "refs" / "main").write_text(commit)
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *a, **k: real(*a, **k, cache_dir=tmp_path, local_files_only=True),
    )
    assert ModernBert.from_pretrained("someone/mean").pipeline.pooling.modes == ("mean",)
