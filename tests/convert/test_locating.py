"""Names of models: paths, runs, checkpoints of runs, and the hub."""

import corpus
import hf_directory
import pytest
from fake_hub import Hub

from modernbert_jax import UserError, cli, convert


@pytest.fixture
def run(tmp_path):
    """A run's folder with checkpoints that hold nothing, and a tokenizer."""
    folder = tmp_path / "run"
    for step in (5, 20):
        (folder / "checkpoints" / str(step) / "state").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer").mkdir()
    corpus.make_tokenizer().save(folder / "tokenizer")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = Hub(tmp_path / "repository", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    hf_directory.write(fake.source)
    corpus.make_tokenizer().save(fake.source)
    return fake


def test_a_run_is_its_export_or_else_its_newest_checkpoint(run, capsys):
    assert cli.main(["inspect", str(run)]) == 2  # its checkpoints hold nothing
    with pytest.warns(UserWarning, match="step 20 of the run"):
        assert convert.locate(run) == run / "checkpoints" / "20"
    assert f"warning: {run}: not finished; step 20" in capsys.readouterr().err
    hf_directory.write(run / "export")
    assert convert.locate(run) == run / "export"
    assert convert.locate(run / "checkpoints" / "5") == run / "checkpoints" / "5"
    assert convert.locate(run / "export") == run / "export"


def test_a_model_with_such_folders_is_no_run(tmp_path):
    model = hf_directory.write(tmp_path / "model")
    hf_directory.write(model / "export")
    assert convert.locate(model) == model


def test_every_command_on_checkpoints_takes_every_name(run, hub, tmp_path, capsys):
    hf_directory.write(run / "export")
    for name in (str(run), "someone/model"):
        assert cli.main(["inspect", name, "--json"]) == 0
        target = tmp_path / name.replace("/", "-")
        assert cli.main(["convert", name, str(target)]) == 0
        assert cli.main(["verify", name, str(target)]) == 0
    average = ["average", str(run), "someone/model", "--output", str(tmp_path / "mean")]
    assert cli.main(average) == 0
    assert "mean of 2 checkpoints" in capsys.readouterr().out


def test_tokenizers_of_every_name(run, hub, tmp_path):
    want = corpus.make_tokenizer().encode(["ba ce"])
    names = [run, run / "checkpoints" / "5", run / "tokenizer", "someone/model"]
    names.append(run / "tokenizer" / "tokenizer.json")
    for name in names:
        assert convert.tokenizer_of(str(name)).encode(["ba ce"]) == want
    assert not any(hub.cache.glob("*.safetensors"))
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        convert.tokenizer_of(hf_directory.write(tmp_path / "bare"))
