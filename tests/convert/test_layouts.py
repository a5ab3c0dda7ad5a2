"""Files about modules, written from a pipeline."""

import dataclasses
import json

import hf_directory
import models
import numpy as np
import own
import pytest

from modernbert_jax import convert
from modernbert_jax.convert import names
from modernbert_jax.convert.module_files import MODULES, SETTINGS, TRANSFORMER
from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import Dense, LayerNorm, Normalize, Pipeline, Pooling, TokenPooling

WITH_MODULES = [n for n, m in models.MODELS.items() if m.kind != "hf"]

RERANKER = Pipeline(
    kind="reranker",
    steps=(
        Pooling(modes=("cls",)),
        Dense(name="dense_0", in_features=32, out_features=32, bias=False),
        LayerNorm(name="layer_norm_0", dimension=32),
        Dense(name="dense_1", in_features=32, out_features=1),
    ),
    activation="torch.nn.modules.linear.Identity",
    max_length=24,
)


@pytest.mark.parametrize("name", WITH_MODULES)
def test_a_pipeline_is_read_as_it_was_written(name, tmp_path):
    checkpoint = convert.load(models.write(name, tmp_path / "a"))
    pipeline, plain = checkpoint.pipeline, own.without_modules(checkpoint)
    assert plain.pipeline is None
    if pipeline.kind == "late-interaction":
        pipeline = dataclasses.replace(pipeline, max_length=128)
    written = convert.with_pipeline(plain, pipeline)
    assert written.pipeline == dataclasses.replace(
        pipeline, max_length=written.pipeline.max_length, prompts=written.pipeline.prompts
    )
    assert dict(written.pipeline.prompts) == dict(pipeline.prompts)
    assert (written.pipeline.max_length or 128) == (pipeline.max_length or 128)
    convert.save(written, tmp_path / "b")
    assert convert.load(tmp_path / "b").pipeline == written.pipeline


def test_a_new_reranker_with_modules(tmp_path):
    """Parameters go to a folder for each module, and the files are those of the library."""
    base = convert.load(models.write("base", tmp_path / "base"))
    rng = np.random.default_rng(0)
    params = {
        "encoder": base.params,
        "dense_0": {"linear": {"kernel": rng.standard_normal((32, 32), np.float32)}},
        "layer_norm_0": {k: rng.standard_normal(32, np.float32) for k in ("scale", "bias")},
        "dense_1": {
            "linear": {
                "kernel": rng.standard_normal((32, 1), np.float32),
                "bias": np.ones(1, np.float32),
            }
        },
    }
    checkpoint = dataclasses.replace(convert.with_pipeline(base, RERANKER), params=params)
    convert.save(checkpoint, tmp_path / "saved", "sentence-transformers")
    theirs = models.write("reranker_modules", tmp_path / "theirs")
    for file in (MODULES, "1_Pooling/config.json", "3_LayerNorm/config.json"):
        ours, want = (json.loads((d / file).read_text()) for d in (tmp_path / "saved", theirs))
        assert ours == want, file
    settings = json.loads((tmp_path / "saved" / SETTINGS).read_text())
    assert settings["activation_fn"].endswith("Identity")
    assert settings["model_type"] == "CrossEncoder"
    tokenizer = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 24
    again = convert.load(tmp_path / "saved")
    paths = [step.path for step in again.pipeline.layers]
    assert paths == ["2_Dense", "3_LayerNorm", "4_Dense"]
    for path, x in names.flatten(params).items():
        np.testing.assert_array_equal(names.leaf(again.params, path), x)


def test_a_classifier_becomes_a_reranker_without_modules(tmp_path):
    checkpoint = own.without_modules(convert.load(models.write("reranker", tmp_path / "a")))
    pipeline = dataclasses.replace(RERANKER, steps=())
    written = convert.with_pipeline(checkpoint, pipeline)
    assert written.pipeline == pipeline and MODULES not in written.files
    # Prompts are more than the layout without modules.json can express.
    prompted = dataclasses.replace(pipeline, prompts={"web": "find: "}, default_prompt="web")
    written = convert.with_pipeline(checkpoint, prompted)
    assert written.pipeline == prompted
    assert json.loads(written.files[TRANSFORMER])["transformer_task"] == "sequence-classification"


def test_another_pipeline_takes_the_place_of_the_first(tmp_path):
    checkpoint = convert.load(models.write("reranker_modules", tmp_path / "a"))
    checkpoint = dataclasses.replace(checkpoint, params=checkpoint.params["encoder"])
    pipeline = Pipeline(
        kind="embedding",
        steps=(Pooling(modes=("mean",), include_prompt=False), Normalize()),
        prompts={"query": "query: "},
        default_prompt="query",
        similarity="dot",
        max_length=100,
        truncate_dim=8,
    )
    written = convert.with_pipeline(checkpoint, pipeline)
    assert written.pipeline == pipeline
    assert not any("Dense" in name for name in written.files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": RERANKER.steps[:-1]}, "must begin with Pooling and end with Dense"),
        ({"steps": RERANKER.steps[1:]}, "must begin with Pooling and end with Dense"),
        ({"steps": ()}, "needs modules or a classifier"),
        (
            {"steps": (*RERANKER.steps[:2], LayerNorm(name="layer_norm_0", dimension=20))},
            "layer_norm_0 takes vectors of width 20, but they have 32",
        ),
        (
            {"steps": (Pooling(modes=("cls", "mean")), *RERANKER.steps[1:])},
            "dense_0 takes vectors of width 32, but they have 64",
        ),
    ],
)
def test_pipelines_that_do_not_fit(changes, message, tmp_path):
    checkpoint = convert.load(models.write("base", tmp_path / "a"))
    with pytest.raises(UserError, match=message):
        convert.with_pipeline(checkpoint, dataclasses.replace(RERANKER, **changes))


def test_a_layer_of_another_width_is_refused(tmp_path):
    source = models.write("reranker_modules", tmp_path / "a")
    (source / "3_LayerNorm/config.json").write_text('{"dimension": 20}')
    with pytest.raises(UserError, match="3_LayerNorm"):
        convert.load(source)


def test_a_head_and_modules_exclude_each_other(tmp_path):
    checkpoint = convert.load(hf_directory.write(tmp_path / "a"))
    with pytest.raises(UserError, match="has no head"):
        convert.with_pipeline(checkpoint, RERANKER)


LATE = [n for n in WITH_MODULES if models.MODELS[n].kind == "late"]


@pytest.mark.parametrize("name", LATE)
def test_late_interaction_in_the_layout_of_version_6(name, tmp_path):
    source = models.write(name, tmp_path / "a")
    convert.convert(source, tmp_path / "b", "sentence-transformers")
    assert convert.detect(tmp_path / "b") == "sentence-transformers"
    before, after = convert.load(source), convert.load(tmp_path / "b")
    assert before.pipeline == after.pipeline
    listed = [m["type"].split(".")[-1] for m in json.loads(after.files[MODULES])]
    dense = ["Dense"] * len(before.pipeline.layers)
    assert listed[: 3 + len(dense)] == ["Transformer", *dense, "MultiVectorMask", "Normalize"]
    if models.MODELS[name].expressible:
        convert.convert(tmp_path / "b", tmp_path / "c", "pylate")
        assert convert.detect(tmp_path / "c") == "pylate"
        assert convert.load(tmp_path / "c").pipeline == before.pipeline
    else:
        with pytest.raises(UserError, match="PyLate cannot express"):
            convert.convert(tmp_path / "b", tmp_path / "c", "pylate")


def late(checkpoint, **changes):
    settings = dataclasses.replace(checkpoint.pipeline.late, **changes)
    return dataclasses.replace(checkpoint.pipeline, late=settings)


def test_what_the_layouts_lack_is_refused(tmp_path):
    checkpoint = convert.load(models.write("colbert", tmp_path / "a"))
    pipeline, steps = checkpoint.pipeline, checkpoint.pipeline.steps
    pooling = TokenPooling(factor=2)
    norm = LayerNorm(name="layer_norm_0", dimension=24)
    later = {
        "same length, or none": late(checkpoint, expansion="min", expansion_length=5),
        "with the mask, not": late(checkpoint, filler="[PAD]"),
        "not MeanMaxSim": dataclasses.replace(pipeline, similarity="MeanMaxSim"),
        "token pooling is an": dataclasses.replace(pipeline, token_pooling=pooling),
        "'ask: ' does not begin": late(checkpoint, query_prefix="ask: "),
        "needs Dense and Norm": dataclasses.replace(pipeline, steps=steps[:1]),
    }
    for message, changed in later.items():
        written = convert.with_pipeline(checkpoint, changed)
        assert written.pipeline == changed, message
        with pytest.raises(UserError, match=f"PyLate cannot express this model: .*{message}"):
            convert.save(written, tmp_path / "b", "pylate")
        assert convert.formats.with_modules("hf", written) == "sentence-transformers"
    normed = dataclasses.replace(pipeline, steps=(steps[0], norm, *steps[1:]))
    with pytest.raises(UserError, match="has no LayerNorm of token vectors"):
        convert.with_pipeline(checkpoint, normed)
    tokenizer = json.loads(checkpoint.files["tokenizer.json"])
    tokenizer["added_tokens"][-2]["single_word"] = True
    files = {**checkpoint.files, "tokenizer.json": json.dumps(tokenizer).encode()}
    alone = dataclasses.replace(checkpoint, files=files)
    with pytest.raises(UserError, match="is other tokens within a text"):
        convert.save(alone, tmp_path / "b", "sentence-transformers")


def test_prompts_after_the_prefixes_are_prompts_of_pylate(tmp_path):
    checkpoint = convert.load(models.write("colbert", tmp_path / "a"))
    changed = late(checkpoint, query_prefix="[Q] search: ", document_prefix="[D] ")
    changed = dataclasses.replace(changed, prompts={"web": "find: "})
    written = convert.with_pipeline(checkpoint, changed)
    settings = json.loads(written.files[SETTINGS])
    assert settings["prompts"] == {"web": "find: ", "query": "search: ", "document": ""}
    assert settings["query_prefix"] == "[Q] " and written.pipeline == changed
