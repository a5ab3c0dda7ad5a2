"""Configurations as JSON: round trips and strict checks."""

import dataclasses
import json

import corpus
import pytest

from modernbert_jax import UserError
from modernbert_jax.io.typed_json import differences, from_json, to_json
from modernbert_jax.train import engine
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage
from modernbert_jax.train.pretrain.run import in_tokens


@pytest.fixture
def config(tmp_path):
    return corpus.run_config(tmp_path, tmp_path / "data")


def test_json_round_trip(config):
    assert from_json(PretrainConfig, to_json(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["model"].update(hiden_size=3),
            "model: unknown key 'hiden_size'; did you mean 'hidden_size'",
        ),
        (lambda c: c.update(seed="x"), "config.seed is 'x'; it must be int"),
        (
            lambda c: c["stages"][1].update(decay_shape="step"),
            "config.stages.1.decay_shape is 'step'; it must be 'one_minus_sqrt'",
        ),
        (lambda c: c["stages"][0].pop("rows"), "config.stages.0: 'rows' is missing"),
        (lambda c: c.update(stages=[]), "stages is empty"),
        (lambda c: c["stages"][0].update(mask_rate=2), "mask_rate is 2.0"),
        (lambda c: c["model"].update(layer_types=["full"]), "layer_types"),
    ],
)
def test_wrong_json_names_key_and_remedy(config, change, message):
    value = to_json(config)
    change(value)
    with pytest.raises(UserError) as error:
        from_json(PretrainConfig, value)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_differences_are_dotted(config):
    a, b = to_json(config), to_json(config)
    b["model"]["hidden_size"], b["stages"][1]["rows"] = 64, 9
    assert differences(a, b) == ["model.hidden_size: 32 -> 64", "stages.1.rows: 1 -> 9"]


def test_stage_counts_steps_in_tokens():
    stage = Stage(
        name="s",
        tokens=1000,
        length=10,
        rows=2,
        peak_learning_rate=1.0,
        warmup_tokens=200,
        decay_tokens=400,
    )
    assert stage.steps == 50
    rate = stage.learning_rate()
    assert [float(rate(i)) for i in (0, 5, 10, 30)] == pytest.approx([0, 0.5, 1, 1])
    assert float(rate(50)) == 0 and float(rate(31)) < 1


def test_parts_of_a_stage_may_be_shares_of_its_tokens(config):
    shape = {"name": "s", "length": 10, "rows": 4, "peak_learning_rate": 1.0}
    shape |= {"batch_warmup_rows": 2, "decay_shape": "linear"}
    counts = {"warmup_tokens": 200, "decay_tokens": 400, "batch_warmup_tokens": 100}
    shares = {"warmup_tokens": 0.2, "decay_tokens": 0.4, "batch_warmup_tokens": 0.1}
    counted, shared = Stage(tokens=1000, **shape, **counts), Stage(tokens=1000, **shape, **shares)
    assert shared.in_tokens == counted == counted.in_tokens
    assert shared.batches.phases == counted.batches.phases
    steps = range(shared.steps + 1)
    assert [float(shared.learning_rate()(i)) for i in steps] == [
        float(counted.learning_rate()(i)) for i in steps
    ]
    longer = dataclasses.replace(shared, tokens=2000)
    assert (longer.rise_tokens, longer.fall_tokens, longer.growth_tokens) == (400, 800, 200)
    for part in counts:
        for wrong in (-0.5, float("nan"), float("inf")):
            with pytest.raises(UserError, match=f"{part} is {wrong}; it "):
                dataclasses.replace(shared, **{part: wrong})
    for part, wrong in (("warmup_tokens", 0.7), ("decay_tokens", 1900)):
        with pytest.raises(UserError, match="do not fit into the stage's 1,000 tokens; shares"):
            dataclasses.replace(shared, **{part: wrong})


def test_a_run_with_numbers_of_tokens_is_resumed_with_the_same_shares(config, tmp_path):
    stage = dataclasses.replace(config.stages[0], tokens=1280, warmup_tokens=0.25)
    config = dataclasses.replace(config, stages=(stage,))
    (tmp_path / "config.json").write_text(json.dumps(to_json(config.in_tokens)))

    def differing(config):
        return engine.RunFolder(tmp_path, to_json(config), (), in_tokens).differences()

    assert to_json(config) != to_json(config.in_tokens) and not differing(config)
    stage = dataclasses.replace(stage, warmup_tokens=0.5)
    (line,) = differing(dataclasses.replace(config, stages=(stage,)))
    assert line == "stages.0.warmup_tokens: 320 -> 640"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture": {"a": -1.0}}, "mixture.a is -1.0; it must be 0 or more"),
        ({"mixture": {"a": 1.0, "b": float("nan")}}, "mixture.b is nan"),
        ({"mixture": {"a": 0.0}}, "mixture leaves out every component"),
        ({"epochs": {"a": 0.0}}, "epochs.a is 0.0; it must be more than 0"),
        ({"epochs": {"a": float("inf")}}, "epochs.a is inf"),
    ],
)
def test_invalid_mixtures_are_refused(config, change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(config.stages[0], **change)


def test_a_mixture_survives_json(config):
    stage = dataclasses.replace(config.stages[0], mixture={"a": 2.0, "b": 0.0}, epochs={"a": 1.5})
    config = dataclasses.replace(config, stages=(stage,))
    assert from_json(PretrainConfig, json.loads(json.dumps(to_json(config)))) == config
    value = to_json(config)
    del value["stages"][0]["mixture"]  # a run from a version without mixtures
    assert from_json(PretrainConfig, value).stages[0].mixture == {}


def test_rows_are_no_longer_than_the_model_supports(config):
    model = dataclasses.replace(config.model, max_position_embeddings=config.stages[0].length - 1)
    with pytest.raises(UserError, match=r"raise that or shorten the rows"):
        dataclasses.replace(config, model=model)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "\ud800", "a\nb"])
def test_names_of_stages_that_no_file_can_have(name):
    with pytest.raises(UserError, match="stage: "):
        Stage(name=name, tokens=64, length=64, rows=1, peak_learning_rate=1e-3)
