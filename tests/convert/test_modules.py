"""Files about modules after the model: read, refused, and written in the older layout."""

import dataclasses
import json
import warnings

import hf_directory
import models
import pytest
import tiny

from modernbert_jax import convert
from modernbert_jax.convert import module_pipeline
from modernbert_jax.convert.module_files import MODULES, SETTINGS, TRANSFORMER
from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import LateInteraction, Normalize, Pooling, SpladePooling

MASK = "2_MultiVectorMask/config.json"


def files_of(name, tmp_path):
    source = models.write(name, tmp_path / "model")
    return {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*.json")}


def change(files, name, **keys):
    content = json.loads(files[name])
    files[name] = json.dumps({**content, **keys}).encode()


def test_both_layouts_say_the_same(tmp_path):
    old, new = (module_pipeline.read(files_of(n, tmp_path / n), {}) for n in ("dense", "native"))
    assert [type(s) for s in old.steps] == [type(s) for s in new.steps]
    assert (old.kind, old.prompts, old.max_length) == (new.kind, new.prompts, new.max_length)
    assert old.max_length == 24 and old.similarity == "cosine"


def test_vectors_are_cut_where_the_model_asks(tmp_path):
    files = files_of("dense", tmp_path)
    assert module_pipeline.read(files, {}).truncate_dim is None
    change(files, SETTINGS, truncate_dim=8)
    assert module_pipeline.read(files, {}).truncate_dim == 8


def test_defaults_of_pylate(tmp_path):
    files = files_of("colbert", tmp_path)
    files[SETTINGS] = b"{}"
    late = module_pipeline.read(files, {}).late
    assert (late.query_prefix, late.query_length, late.document_length) == ("[Q] ", 32, 180)
    assert late.expansion == "fixed" and not late.attend
    assert "!" in late.skiplist and len(late.skiplist) == 32


def later(tmp_path, **expansion):
    files = files_of("multi_vector", tmp_path)
    own = {"strategy": "fixed", "attend": False, "token": None, "length": 16, **expansion}
    change(files, TRANSFORMER, query_expansion=own)
    return files


def test_late_interaction_of_the_later_layout(tmp_path):
    files = later(tmp_path, strategy="min", token="[SEP]", attend=True)
    change(files, TRANSFORMER, query_length=20)
    change(files, SETTINGS, similarity_fn_name="meanmaxsim", default_prompt_name="query")
    change(files, SETTINGS, prompts={"query": "ask: ", "passage": "doc: "})
    pipeline = module_pipeline.read(files, {})
    assert pipeline.similarity == "MeanMaxSim" and pipeline.prompt(None) == ""
    assert pipeline.late == LateInteraction(
        query_prefix="ask: ",
        document_prefix="doc: ",
        query_length=20,
        document_length=30,
        expansion="min",
        expansion_length=16,
        filler="[SEP]",
        attend=True,
        skiplist=("!", ",", "."),
    )
    change(files, TRANSFORMER, query_expansion=None)
    change(files, SETTINGS, similarity_fn_name="cosine")
    pipeline = module_pipeline.read(files, {})
    assert (pipeline.late.expansion, pipeline.late.query_length) == ("none", 20)
    assert pipeline.similarity == "MaxSim"


def test_prompts_of_pylate_follow_the_prefixes(tmp_path):
    files = files_of("colbert", tmp_path)
    change(files, SETTINGS, prompts={"query": "ask: ", "document": "[D] doc: ", "web": "find: "})
    pipeline = module_pipeline.read(files, {})
    assert pipeline.late.query_prefix == "[Q] ask: "
    assert pipeline.late.document_prefix == "[D] doc: " and pipeline.prompts == {"web": "find: "}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: change(f, MASK, keep_only_token_ids=[3]), "keep_only_token_ids is not supp"),
        (lambda f: change(f, MASK, skiplist_tasks=["query"]), "skiplist_tasks is .'query'"),
        (lambda f: change(f, MASK, skiplist_words=[3]), "skiplist_words is .3.; it must"),
        (lambda f: change(f, TRANSFORMER, query_expansion={"length": 3}), "strategy is None"),
        (
            lambda f: change(f, TRANSFORMER, query_expansion={"strategy": "fixed"}),
            "query_expansion: length is None",
        ),
        (
            lambda f: change(
                f, TRANSFORMER, query_length=3, query_expansion={"strategy": "min", "length": 8}
            ),
            "filled up to 8 tokens, but they may have 3",
        ),
    ],
)
def test_refusals_of_late_interaction(tmp_path, spoil, message):
    files = files_of("multi_vector", tmp_path)
    spoil(files)
    with pytest.raises(UserError, match=message):
        module_pipeline.read(files, {})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.update({MODULES: b"{"}), r"modules\.json: not JSON"),
        (lambda f: f.update({MODULES: b"[]"}), "first module must be a Transformer"),
        (
            lambda f: f.update({MODULES: f[MODULES].replace(b"2_D", b"../2_D")}),
            r"path '\.\./2_Dense' is not inside the directory",
        ),
        (
            lambda f: f.update({MODULES: f[MODULES].replace(b".Pooling", b".CNN")}),
            r"module 'sentence_transformers\.models\.CNN' is not supported",
        ),
        (
            lambda f: f.update({MODULES: f[MODULES].replace(b"sentence_transformers", b"my", 1)}),
            r"module 'my\.models\.Transformer' is not supported",
        ),
        (
            lambda f: change(f, "2_Dense/config.json", activation_function="os.system"),
            "activation_function is 'os.system'",
        ),
        (lambda f: change(f, "2_Dense/config.json", in_features="32"), "in_features is '32'; it"),
        (lambda f: change(f, "2_Dense/config.json", out_features=0), "out_features is 0; it must"),
        (lambda f: change(f, "1_Pooling/config.json", pooling_mode="first"), "pooling is 'first'"),
        (
            lambda f: f.update({MODULES: f[MODULES].replace(b"1_Pooling", b"2_Dense")}),
            "names the folder '2_Dense' twice",
        ),
        (lambda f: change(f, "1_Pooling/config.json", layers=[1, 2]), r"layers \[1, 2\]: not supp"),
        (lambda f: change(f, "2_Dense/config.json", dropout=0.5), "dropout 0.5: not supported"),
        (
            lambda f: change(f, TRANSFORMER, tokenizer_args={"truncation_side": "left"}),
            "tokenizer_args .*truncation_side.*: not supported",
        ),
        (lambda f: change(f, SETTINGS, truncate_dim=-8), "truncate_dim is -8"),
        (
            lambda f: change(f, SETTINGS, model_type="Router"),
            "model_type is 'Rout",
        ),
        (
            lambda f: change(f, SETTINGS, model_type="SparseEncoder"),
            "sparse model must be a Transformer and a SpladePooling",
        ),
        (
            lambda f: change(f, SETTINGS, prompts=[1]),
            "prompts is .1.; it must be dict",
        ),
    ],
)
def test_refusals(tmp_path, spoil, message):
    files = files_of("dense", tmp_path)
    spoil(files)
    with pytest.raises(UserError, match=message):
        module_pipeline.read(files, {})


def test_a_plain_encoder_becomes_an_embedding_model(tmp_path):
    source = hf_directory.write(tmp_path / "source")
    convert.convert(source, tmp_path / "target", "sentence-transformers")
    assert convert.detect(tmp_path / "target") == "sentence-transformers"
    pipeline = convert.load(tmp_path / "target").pipeline
    assert pipeline.steps == (Pooling(modes=("mean",)),)
    assert pipeline.max_length == tiny.config().max_position_embeddings
    assert (tmp_path / "target/1_Pooling/config.json").is_file()


def test_formats_are_for_their_kinds(tmp_path):
    late = models.write("colbert", tmp_path / "late")
    one = models.write("mean", tmp_path / "one")
    with pytest.raises(UserError, match="'pylate' is for late-interaction models"):
        convert.convert(one, tmp_path / "target", "pylate")
    assert not (tmp_path / "target").exists()
    assert [convert.detect(d) for d in (late, one)] == ["pylate", "sentence-transformers"]


def test_sparse_models_need_their_head(tmp_path):
    """The later layout becomes the older one, and a model without a masked-LM head is refused."""
    source = models.write("sparse_native", tmp_path / "source")
    convert.convert(source, tmp_path / "target", "sentence-transformers")
    modules = json.loads((tmp_path / "target" / MODULES).read_text())
    kinds = [entry["type"].rpartition(".")[2] for entry in modules]
    assert kinds == ["MLMTransformer", "SpladePooling"]
    pipeline = convert.load(tmp_path / "target").pipeline
    assert pipeline.splade == SpladePooling() and pipeline.max_active_dims == 30
    for kind in ("base", "sequence"):
        folder = models.write(kind, tmp_path / kind)
        for file in (MODULES, SETTINGS, TRANSFORMER):
            (folder / file).write_bytes((source / file).read_bytes())
        with pytest.raises(UserError, match="needs a masked-LM head"):
            convert.load(folder)
        plain = convert.load(models.write(kind, tmp_path / f"plain_{kind}"))
        with pytest.raises(UserError, match="has a masked-LM head"):
            convert.with_pipeline(plain, pipeline)
    wrong = dataclasses.replace(pipeline, steps=(SpladePooling(), SpladePooling()))
    with pytest.raises(UserError, match="only module of a sparse model"):
        convert.with_pipeline(convert.load(source), wrong)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("1_SpladePooling/config.json", "pooling_strategy", "mean"),
        ("1_SpladePooling/config.json", "activation_function", "gelu"),
        (SETTINGS, "max_active_dims", 0),
    ],
)
def test_refusals_of_sparse_models(file, key, value, tmp_path):
    files = files_of("sparse", tmp_path)
    change(files, file, **{key: value})
    with pytest.raises(UserError, match=f"{key} is {value!r}; it must be"):
        module_pipeline.read(files, {})


def test_what_pylate_cannot_say_is_refused(tmp_path):
    source = models.write("multi_vector", tmp_path / "source")
    settings = json.loads((source / SETTINGS).read_text())
    settings["prompts"] = {"query": "ask: ", "document": ""}
    (source / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(UserError, match="PyLate cannot express this model: its prefix 'ask: '"):
        convert.convert(source, tmp_path / "target", "pylate")
    assert not (tmp_path / "target").exists()
    convert.convert(source, tmp_path / "jax")
    assert convert.load(tmp_path / "jax").pipeline.late.query_prefix == "ask: "


def test_unknown_settings_survive(tmp_path):
    source = models.write("native", tmp_path / "source")
    files = {SETTINGS: (source / SETTINGS).read_bytes()}
    change(files, SETTINGS, my_key=[1])
    (source / SETTINGS).write_bytes(files[SETTINGS])
    with pytest.warns(UserWarning, match=r"my_key \[1\]: not read"):
        convert.convert(source, tmp_path / "target", "sentence-transformers")
    assert json.loads((tmp_path / "target" / SETTINGS).read_text())["my_key"] == [1]


def test_a_difference_after_the_model_is_reported(tmp_path):
    a, b = (models.write("mean", tmp_path / n) for n in "ab")
    (b / "modules.json").write_text(
        json.dumps([m for m in json.loads((b / "modules.json").read_text()) if m["idx"] < 2])
    )
    result = convert.verify(a, b)
    assert not result.equal and result.config["steps"][0][-1] == Normalize()


def test_a_dense_weight_is_named(tmp_path):
    source = models.write("dense", tmp_path / "a")
    checkpoint = convert.load(source)
    checkpoint.params["dense_0"]["linear"]["kernel"][3, 4] += 0.25
    result = convert.verify(source, checkpoint)
    assert not result.equal and result.worst == ("2_Dense/linear.weight", pytest.approx(0.25))
    assert result.hidden == 0 < result.logits


def test_inspect_says_what_follows(tmp_path):
    facts = convert.inspect(models.write("colbert_stack", tmp_path / "a"))
    assert json.loads(json.dumps(facts)) == facts
    assert [s["type"] for s in facts["pipeline"]["steps"]] == ["Dense"] * 3 + ["Normalize"]
    assert facts["pipeline"]["late"]["query_length"] == 16 and facts["format"] == "pylate"


@pytest.mark.parametrize("name", ["base", "decoder"])
def test_a_model_without_modules_has_none(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convert.load(models.write(name, tmp_path / "a")).pipeline is None
