"""One way from a name or a file to a configuration, whatever the kind of run."""

import dataclasses
import json

import pytest

from modernbert_jax import UserError, configs
from modernbert_jax.io import typed_json
from modernbert_jax.train.finetune import config as finetuning
from modernbert_jax.train.retrieval import config as retrieval

KINDS = {
    "pretrain": ("nano", "PretrainConfig", typed_json.to_json),
    "finetune": ("rte", "FinetuneConfig", finetuning.to_json),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_is_sound(kind):
    for name, preset in configs.presets(kind).items():
        config = configs.load(kind, name)
        known = (KINDS[kind][1], *(("RetrievalConfig",) if kind == "finetune" else ()))
        assert type(config).__name__ in known and preset.summary
        if kind == "pretrain":
            assert config.starts[-1] == sum(stage.steps for stage in config.stages)


def test_a_run_of_retrieval_is_told_from_a_task(tmp_path):
    config = configs.load("finetune", "reranker")
    assert config.kind == "reranker" and config.loss.name == "binary-cross-entropy"
    config = dataclasses.replace(config, prompts={"query": "q: "})
    (tmp_path / "mine.json").write_text(json.dumps(retrieval.to_json(config)))
    assert configs.load("finetune", str(tmp_path / "mine.json")) == config


def test_every_recipe_of_retrieval_survives_json(tmp_path):
    for name in configs.presets("finetune"):
        config = configs.load("finetune", name)
        if isinstance(config, retrieval.RetrievalConfig):
            (tmp_path / "mine.json").write_text(json.dumps(retrieval.to_json(config)))
            assert configs.load("finetune", str(tmp_path / "mine.json")) == config


@pytest.mark.parametrize("kind", KINDS)
def test_python_and_json_files(tmp_path, kind):
    name, type_name, to_json = KINDS[kind]
    config = configs.load(kind, name)
    (tmp_path / "mine.json").write_text(json.dumps(to_json(config)))
    assert configs.load(kind, str(tmp_path / "mine.json")) == config
    (tmp_path / "mine.py").write_text(
        "from modernbert_jax import configs\n"
        f"def config():\n    return configs.load({kind!r}, {name!r})\n"
    )
    assert configs.load(kind, str(tmp_path / "mine.py")) == config
    (tmp_path / "empty.py").write_text("x = 1\n")
    (other,) = {*KINDS} - {kind}
    for source, key in (
        (tmp_path / "empty.py", f"config() that returns a {type_name}"),
        (tmp_path / "none.py", "no such file"),
        (tmp_path / "none.json", "no such file"),
        (f"{name}x", f"did you mean {name!r}"),
        (KINDS[other][0], "no preset is named"),
    ):
        with pytest.raises(UserError) as error:
            configs.load(kind, str(source))
        assert key in str(error.value)


def test_a_configuration_of_another_kind_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("from modernbert_jax.configs.nano import config\n")
    with pytest.raises(UserError, match="returns a FinetuneConfig"):
        configs.load("finetune", str(tmp_path / "mine.py"))
