"""Research checkpoints: to our formats and back bit for bit; unsupported ones are refused."""

import json

import hf_directory
import ml_dtypes
import numpy as np
import pytest
import tiny
from reference import FIXTURES, GOLDENS

from modernbert_jax import cli, convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import flexbert, names
from modernbert_jax.convert.flexbert import configuration
from modernbert_jax.convert.torch_files import archives, writer
from modernbert_jax.errors import UserError

FOLDER = FIXTURES / "flexbert"
NAMES = ("tiny_stage1", "tiny_context_extended")
RUN = GOLDENS / "torch/run.pt"
FITTING = tiny.config(num_hidden_layers=4)
"""Every third layer global, the last one too, as the research code has it."""


def state(path):
    return archives.Archive(path).value["state"]


def model(path):
    """Tensors by research name: bits with dtype and shape, and the keys of their storages."""
    archive = archives.Archive(path)
    tensors = archive.tensors(archive.value["state"]["model"])
    bits = {n: (x.dtype.name, x.shape, np.asarray(x).tobytes()) for n, x in tensors.items()}
    return bits, {n: archive.value["state"]["model"][n].storage.key for n in tensors}


def about(path):
    return state(path)["integrations"]["huggingface"]["model"]["config"]


def research(path, change=None, tensors=None, kind=None):
    """A new file with the fixture's weights, a changed configuration and other tensors."""
    archive = archives.Archive(FOLDER / "tiny_stage1.pt")
    value = archive.value
    merged = {**archive.tensors(value["state"]["model"]), **(tensors or {})}
    value["state"]["model"] = {n: x for n, x in merged.items() if x is not None}
    content = value["state"]["integrations"]["huggingface"]["model"]["config"]["content"]
    content |= change or {}
    if kind:
        value["state"]["integrations"]["huggingface"]["model"]["config"]["class"] = kind
    writer.write(path, value)
    return path


@pytest.mark.parametrize("way", ["jax", "hf"])
@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_is_the_same(tmp_path, name, way):
    source = FOLDER / f"{name}.pt"
    convert.convert(source, tmp_path / "other", format=way)
    convert.convert(tmp_path / "other", tmp_path / "back.pt")
    convert.convert(tmp_path / "other", tmp_path / "run", format="flexbert")
    for back in (tmp_path / "back.pt", tmp_path / "run" / "latest-rank0.pt"):
        (old, _), (new, keys) = model(source), model(back)
        assert [*old] == [*new]
        assert old == new
        assert about(back)["content"] == about(source)["content"]
        table = "model.bert.embeddings.tok_embeddings.weight"
        assert keys["model.decoder.weight"] == keys[table]
    assert convert.detect(tmp_path / "run") == "flexbert"
    assert convert.load(tmp_path / "run").config == convert.load(source).config


def test_what_composer_looks_for_is_there(tmp_path):
    convert.convert(FOLDER / "tiny_stage1.pt", tmp_path / "x.pt", format="flexbert")
    described = about(tmp_path / "x.pt")
    assert {*described} == {"file_extension", "content", "class"}
    assert described["class"] == "src.bert_layers.model.FlexBertForMaskedLM"
    assert archives.Archive(tmp_path / "x.pt").value["rng"] == []
    assert state(tmp_path / "x.pt")["integrations"]["huggingface"]["tokenizer"] == {}


@pytest.mark.parametrize("none", [-1, -1.0])
def test_a_local_theta_of_minus_one_is_the_global_one(tmp_path, none):
    change = {"rotary_emb_base": 5e4, "local_attn_rotary_emb_base": none}
    path = research(tmp_path / "x.pt", change)
    config = convert.load(path).config
    assert config.local_rope_theta == config.global_rope_theta == 5e4
    convert.convert(path, tmp_path / "hf", format="hf")
    written = json.loads((tmp_path / "hf/config.json").read_text())
    assert written["local_rope_theta"] == 5e4
    assert written["rope_parameters"]["sliding_attention"]["rope_theta"] == 5e4


def test_a_whole_training_state(tmp_path):
    """Optimizer, clocks and random numbers are skipped; file names that are paths are ignored."""
    checkpoint = convert.load(RUN)
    assert sorted(checkpoint.files) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert checkpoint.files["vocab.txt"] == b"a\nb"
    config = checkpoint.config
    assert (config.cls_token_id, config.bos_token_id) == (27, 27)
    assert (config.sep_token_id, config.pad_token_id) == (28, 29)
    assert checkpoint.tokenizer.mask_id == 30
    convert.save(checkpoint, tmp_path / "x.pt", "flexbert")
    source, back = (state(p)["integrations"]["huggingface"] for p in (RUN, tmp_path / "x.pt"))
    del source["tokenizer"]["../../evil"]
    assert back == source
    assert model(tmp_path / "x.pt")[0] == model(RUN)[0]


BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
EXPRESSIBLE = {
    "plain": FITTING,
    "biases": tiny.config(num_hidden_layers=4, **BIASES),
    "untied": tiny.config(num_hidden_layers=4, tie_word_embeddings=False, decoder_bias=False),
    "every second": tiny.config(num_hidden_layers=3, global_attn_every_n_layers=2),
    "all global": tiny.config(num_hidden_layers=3, global_attn_every_n_layers=1),
    "all sliding": tiny.config(num_hidden_layers=2, layer_types=("sliding_attention",) * 2),
    "other numbers": tiny.config(
        num_hidden_layers=4,
        norm_eps=1e-7,
        global_rope_theta=8e4,
        local_rope_theta=8e4,
        hidden_activation="gelu_new",
        classifier_activation="silu",
        attention_dropout=0.1,
        mlp_dropout=0.2,
        embedding_dropout=0.3,
        max_position_embeddings=77,
        pad_token_id=None,
    ),
}


@pytest.mark.parametrize("dtype", ["float32", hf_directory.mixed])
@pytest.mark.parametrize("config", EXPRESSIBLE.values(), ids=EXPRESSIBLE)
@pytest.mark.filterwarnings("ignore:layer_types is irregular")
def test_hf_to_flexbert_and_back_is_the_same_directory(tmp_path, config, dtype):
    keys = {"my_key": [1, {"a": None}], "torch_dtype": "bfloat16"}
    weights = hf_directory.weights(hf_directory.shapes(config), dtype)
    hf_directory.write(tmp_path / "source", weights, config, **keys)
    for name, content in hf_directory.tokenizer().files.items():
        (tmp_path / "source" / name).write_bytes(content)
    (tmp_path / "source/special_tokens_map.json").write_bytes(b'{"mask_token":   "[MASK]"}\r\n')
    convert.convert(tmp_path / "source", tmp_path / "first", format="hf")
    convert.convert(tmp_path / "first", tmp_path / "x.pt")
    convert.convert(tmp_path / "x.pt", tmp_path / "back", format="hf")
    (tmp_path / "back/config.json").write_text(without_research(tmp_path / "back/config.json"))
    for file in (tmp_path / "first").iterdir():
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes(), file.name
    assert convert.load(tmp_path / "back").config == config


def without_research(path):
    """The text of a config.json without the research configuration."""
    content = json.loads(path.read_text())
    del content["flexbert"]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("head", ["none", "sequence_classification", "multiple_choice"])
def test_heads(tmp_path, head, prefix):
    labels = 1 if head == "multiple_choice" else 3
    shapes = hf_directory.shapes(FITTING, names.HEADS[head], labels)
    plain = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    inner = ("embeddings.", "layers.", "final_norm.")
    plain = {f"{prefix}{n}" if n.startswith(inner) else n: s for n, s in plain.items()}
    keys = {"architectures": [names.HEADS[head]], "id2label": {"0": "x", "1": "y", "2": "z"}}
    weights = hf_directory.weights(plain, hf_directory.mixed)
    hf_directory.write(tmp_path / "source", weights, FITTING, **keys)
    convert.convert(tmp_path / "source", tmp_path / "x.pt")
    assert about(tmp_path / "x.pt")["class"].endswith(configuration.CLASSES[head])
    research_names = [*model(tmp_path / "x.pt")[0]]
    assert all(n.startswith(("model.bert.", "model.head.", "model.cla")) for n in research_names)
    loaded = convert.load(tmp_path / "x.pt")
    assert (loaded.head, loaded.labels) == (head, labels if head != "none" else 3)
    convert.convert(tmp_path / "x.pt", tmp_path / "back", format="hf")
    convert.convert(tmp_path / "source", tmp_path / "first", format="hf")
    first, back = (d / "model.safetensors" for d in (tmp_path / "first", tmp_path / "back"))
    assert first.read_bytes() == back.read_bytes()


def test_a_research_classifier(tmp_path):
    """A file of the research code: the class implies the head, `id2label` the number of labels."""
    more = {"model.classifier.weight": np.ones((3, 64), np.float32)}
    more |= {"model.classifier.bias": np.ones(3, np.float32)}
    more |= {"model.decoder.weight": None, "model.decoder.bias": None}
    change = {"head_class_norm": True, "head_class_act": "gelu_tanh", "pooling_type": "mean"}
    change |= {"id2label": {"0": "a", "1": "b", "2": "c"}, "head_class_dropout": 0.25}
    path = research(tmp_path / "x.pt", change, more)
    checkpoint = convert.load(path)
    assert (checkpoint.head, checkpoint.labels) == ("sequence_classification", 3)
    config = checkpoint.config
    assert (config.classifier_activation, config.classifier_pooling) == (
        "gelu_pytorch_tanh",
        "mean",
    )
    assert config.classifier_dropout == 0.25
    more["model.classifier.weight"], more["model.classifier.bias"] = (
        np.ones((1, 64), np.float32),
        np.ones(1, np.float32),
    )
    path = research(
        tmp_path / "y.pt", change, more, "src.bert_layers.model.FlexBertForMultipleChoice"
    )
    assert convert.load(path).head == "multiple_choice"


def test_a_changed_research_configuration_wins_over_what_was_kept_beside(tmp_path):
    convert.convert(FOLDER / "tiny_stage1.pt", tmp_path / "x.pt", format="flexbert")
    archive = archives.Archive(tmp_path / "x.pt")
    value = archive.value
    value["state"]["model"] = archive.tensors(value["state"]["model"])
    huggingface = value["state"]["integrations"]["huggingface"]
    huggingface["model"]["config"]["content"]["rotary_emb_base"] = 160_000.0
    writer.write(tmp_path / "y.pt", value)
    assert convert.load(tmp_path / "y.pt").config.global_rope_theta == 160_000.0


def test_a_change_in_our_hands_reaches_the_research_configuration(tmp_path):
    checkpoint = convert.load(FOLDER / "tiny_stage1.pt")
    config = {**checkpoint.config.to_hf(), "rope_parameters": None, "global_rope_theta": 160_000.0}
    changed = convert.Checkpoint(
        config=ModernBertConfig.from_hf(config), params=checkpoint.params, extra=checkpoint.extra
    )
    convert.save(changed, tmp_path / "x.pt", "flexbert")
    content = about(tmp_path / "x.pt")["content"]
    assert (content["rotary_emb_base"], content["local_attn_rotary_emb_base"]) == (160_000.0, 1e4)
    assert content["init_method"] == "full_megatron"
    assert convert.load(tmp_path / "x.pt").config == changed.config


def test_cast(tmp_path):
    convert.convert(
        FOLDER / "tiny_stage1.pt", tmp_path / "x.pt", format="flexbert", dtype="bfloat16"
    )
    bits, _ = model(tmp_path / "x.pt")
    assert {dtype for dtype, _, _ in bits.values()} == {"bfloat16"}
    source = convert.load(FOLDER / "tiny_stage1.pt").params["head"]["dense"]["kernel"]
    want = source.T.astype(ml_dtypes.bfloat16).tobytes()
    assert bits["model.head.dense.weight"][2] == want


REFUSED = {
    "parallel attention": (
        {"attention_layer": "rope_parallel"},
        "attention_layer is 'rope_parallel'",
    ),
    "absolute positions": (
        {"embedding_layer": "absolute_pos"},
        "embedding_layer is 'absolute_pos'",
    ),
    "post-norm": ({"bert_layer": "unpadded_postnorm"}, "bert_layer is 'postnorm'"),
    "parallel layers": ({"bert_layer": "parallel_prenorm"}, "bert_layer is 'parallel_prenorm'"),
    "plain MLP": ({"mlp_layer": "mlp"}, "mlp_layer is 'mlp'; in ModernBERT it is 'glu'"),
    "rmsnorm": ({"normalization": "triton_rmsnorm"}, "normalization is 'triton_rmsnorm'"),
    "no norm of embeddings": ({"embed_norm": False}, "embed_norm is False"),
    "no last norm": ({"final_norm": False}, "final_norm is False"),
    "first norm": ({"skip_first_prenorm": False}, "skip_first_prenorm is False"),
    "first layers": (
        {"initial_mlp_layer": "mlp"},
        "initial_mlp_layer is 'mlp', unlike the mlp_layer",
    ),
    "one bias": ({"attn_qkv_bias": True}, "attn_qkv_bias and attn_out_bias differ"),
    "other bias": ({"mlp_out_bias": True}, "mlp_in_bias and mlp_out_bias differ"),
    "half rotation": ({"rotary_emb_dim": 32}, "rotary_emb_dim is 32; ModernBERT rotates all of 64"),
    "local rotation": ({"local_attn_rotary_emb_dim": 16}, "local_attn_rotary_emb_dim is 16"),
    "interleaved": ({"rotary_emb_interleaved": True}, "rotary_emb_interleaved is True"),
    "xPos": ({"rotary_emb_scale_base": 512}, "rotary_emb_scale_base is 512"),
    "activation": ({"hidden_act": "celu"}, "hidden_act is 'celu'; known: gelu"),
    "head activation": ({"head_pred_act": None}, "head_pred_act is None; it must be str"),
    "head norm": ({"head_pred_norm": False}, "head_pred_norm is off"),
    "norm arguments": (
        {"norm_kwargs": {"elementwise_affine": False}},
        "norm_kwargs has 'elementwise",
    ),
    "norm eps": ({"norm_kwargs": {"eps": "x"}}, "norm_kwargs has eps 'x'"),
    "causal": ({"causal_mask": True}, "causal_mask is True"),
    "type": ({"hidden_size": "64"}, "hidden_size is '64'; it must be int"),
    "no number": ({"rotary_emb_base": None}, "rotary_emb_base is None; it must be int or float"),
    "nonsense": ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    "another width": ({"intermediate_size": 97}, "of another shape model.layers.0.mlp.Wi.weight"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_modernbert_is_refused_by_name(tmp_path, change, message):
    path = research(tmp_path / "x.pt", change)
    with pytest.raises(UserError) as error:
        convert.convert(path, tmp_path / "out")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert message in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_all_that_is_wrong_is_named(tmp_path):
    change = {
        k: v for name in ("rmsnorm", "plain MLP", "one bias") for k, v in REFUSED[name][0].items()
    }
    with pytest.raises(UserError) as error:
        convert.load(research(tmp_path / "x.pt", change))
    assert all(
        REFUSED[name][1] in str(error.value) for name in ("rmsnorm", "plain MLP", "one bias")
    )


def test_a_research_decoder_is_refused(tmp_path):
    more = {"model.lm_head.dense.weight": np.ones((64, 64), np.float32)}
    with pytest.raises(UserError, match="has lm_head"):
        convert.load(research(tmp_path / "x.pt", tensors=more))


def test_a_decoder_that_differs_from_the_embedding(tmp_path):
    table = {"model.decoder.weight": np.ones((512, 64), np.float32)}
    path = research(tmp_path / "x.pt", tensors=table)
    with pytest.warns(UserWarning, match=r"decoder\.weight differs from the embedding"):
        assert not convert.load(path).config.tie_word_embeddings


INEXPRESSIBLE = {
    "irregular": (
        {
            "layer_types": ("full_attention", "full_attention", "sliding_attention"),
            "num_hidden_layers": 3,
        },
        "ModernBertForMaskedLM",
        "layer_types is irregular",
    ),
    "stretched": (
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        "ModernBertForMaskedLM",
        "rope scaling; the research code has none",
    ),
    "tokens": ({}, "ModernBertForTokenClassification", "head is token_classification"),
    "spans": ({}, "ModernBertForQuestionAnswering", "head is question_answering"),
}


@pytest.mark.parametrize(("keys", "kind", "message"), INEXPRESSIBLE.values(), ids=INEXPRESSIBLE)
def test_what_the_research_code_has_no_word_for(tmp_path, capsys, keys, kind, message):
    fields = {k: v for k, v in keys.items() if k != "rope_scaling"}
    config = tiny.config(**fields)
    weights = hf_directory.weights(hf_directory.shapes(config, kind))
    more = {**{k: v for k, v in keys.items() if k == "rope_scaling"}, "architectures": [kind]}
    source = hf_directory.write(tmp_path / "source", weights, config, **more)
    assert cli.main(["convert", str(source), str(tmp_path / "x.pt")]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "checkpoint of Composer"),
        ({"state": {"model": {}}}, "checkpoint of Composer"),
        ({"state": {"model": []}}, "model is a list, not a dict"),
        ({"state": {"model": {"a": 1}, "integrations": 3}}, "integrations is a int, not a dict"),
        ({"model.a": np.ones(2, np.float32)}, "checkpoint of Composer"),
    ],
)
def test_other_files_of_torch(tmp_path, value, message):
    writer.write(tmp_path / "x.pt", value)
    with pytest.raises(UserError) as error:
        convert.load(tmp_path / "x.pt")
    assert message in str(error.value)


def test_paths(tmp_path):
    (tmp_path / "runs").mkdir()
    for name in ("ep0-ba1-rank0.pt", "ep0-ba2-rank0.pt"):
        (tmp_path / "runs" / name).write_bytes((FOLDER / "tiny_stage1.pt").read_bytes())
    with pytest.raises(UserError, match=r"holds ep0-ba1-rank0\.pt, ep0-ba2.*; name one"):
        convert.load(tmp_path / "runs")
    (tmp_path / "runs" / flexbert.LATEST).symlink_to("ep0-ba2-rank0.pt")
    assert convert.load(tmp_path / "runs").config.num_hidden_layers == 7
    (tmp_path / "there.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="exists; choose another"):
        convert.convert(tmp_path / "runs", tmp_path / "there.pt")
    assert (tmp_path / "there.pt").read_bytes() == b"x"


def test_inspect(capsys):
    assert cli.main(["inspect", str(FOLDER / "tiny_stage1.pt"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["parameter_count"]) == ("flexbert", 282_112)
    assert facts["extra"]["flexbert"]["local_attn_rotary_emb_base"] == -1
    assert cli.main(["inspect", str(FOLDER / "tiny_stage1.pt")]) == 0
    assert "full_megatron" in capsys.readouterr().out


def test_two_conversions_are_alike(tmp_path):
    """No name of a temporary file is in the result, and it is written once."""
    written = [tmp_path / folder / "out.pt" for folder in "ab"]
    for path in written:
        convert.convert(FOLDER / "tiny_stage1.pt", path)
    assert written[0].read_bytes() == written[1].read_bytes()
    assert state(written[0])["run_name"] == "out"
    convert.convert(FOLDER / "tiny_stage1.pt", tmp_path / "c", format="flexbert")
    assert state(tmp_path / "c" / flexbert.LATEST)["run_name"] == "latest-rank0"
