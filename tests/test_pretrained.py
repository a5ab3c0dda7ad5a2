"""`ModernBert`: results that do not depend on what else is in the batch, and clear refusals."""

import subprocess
import sys
import types

import hf_directory
import huggingface_hub
import jax
import numpy as np
import pytest
import tiny

from modernbert_jax import ModernBert, convert
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM

CONFIG = tiny.config(vocab_size=320, num_hidden_layers=4, max_position_embeddings=200)
TEXTS = ["hello", "", "a b c d " * 30, "hello world, hello there", "x" * 1000, "a b"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    weights = hf_directory.weights(hf_directory.shapes(CONFIG))
    directory = hf_directory.write(tmp_path_factory.mktemp("model"), weights, CONFIG)
    for name, content in hf_directory.tokenizer().files.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def bert(directory):
    return ModernBert.from_pretrained(directory)


@pytest.fixture(scope="module")
def bare(directory):
    """The encoder alone, without tokenizer."""
    params = convert.load(directory).params["encoder"]
    return ModernBert(convert.Checkpoint(config=CONFIG, params=params, head="none"))


def documents(*lengths):
    rng = np.random.default_rng(1)
    return [rng.integers(0, CONFIG.vocab_size, n).tolist() for n in lengths]


def test_attributes(bert, directory):
    assert bert.config == CONFIG
    assert isinstance(bert.module, MaskedLM)
    assert bert.tokenizer.vocab_size == 320
    checkpoint = convert.load(directory)
    assert {leaf.dtype for leaf in jax.tree.leaves(bert.params)} == {np.dtype(np.float32)}
    for path, leaf in names.flatten(checkpoint.params).items():
        np.testing.assert_array_equal(names.leaf(bert.params, path), leaf)


def test_hidden_equals_the_module_on_each_document(bert, bare):
    lists = documents(3, 150, 40, 0, 128, 1, 60, 90)
    states = bert.hidden(lists)
    assert [x.shape for x in states] == [(len(ids), CONFIG.hidden_size) for ids in lists]
    assert {x.dtype for x in states} == {np.dtype(np.float32)}
    apply = jax.jit(lambda rows: bert.module.apply({"params": bert.params}, *rows, method="hidden"))
    for ids, hidden in zip(lists, states, strict=True):
        rows = tiny.rows([[len(ids)]], 256)
        rows.token_ids[0, : len(ids)] = ids
        np.testing.assert_allclose(hidden, apply(rows)[0, : len(ids)], atol=1e-5)
    for one, other in zip(states, bare.hidden(lists), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_order_and_company_do_not_matter(bert):
    lists = documents(3, 150, 40, 128, 1, 60, 90)
    together, backwards = bert.hidden(lists), bert.hidden(lists[::-1])[::-1]
    for ids, one, other in zip(lists, together, backwards, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(one, bert.hidden([ids])[0], atol=1e-5)


def test_mlm_logits(bert):
    lists = documents(3, 150, 40)
    for logits, hidden in zip(bert.mlm_logits(lists), bert.hidden(lists), strict=True):
        assert logits.shape == (len(hidden), CONFIG.vocab_size)
        want = bert.module.apply({"params": bert.params}, hidden, method="logits")
        np.testing.assert_allclose(logits, want, atol=3e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_encode_pools_each_text(bert, pooling):
    vectors = bert.encode(TEXTS, pooling=pooling)
    assert vectors.shape == (len(TEXTS), CONFIG.hidden_size) and vectors.dtype == np.float32
    reduce = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "max": lambda x: x.max(0)}
    ids = bert.tokenizer.encode(TEXTS, max_length=CONFIG.max_position_embeddings)
    for vector, hidden in zip(vectors, bert.hidden(ids), strict=True):
        np.testing.assert_allclose(vector, reduce[pooling](hidden), atol=1e-5)


def test_encode_options(bert):
    vectors = bert.encode(TEXTS)
    np.testing.assert_allclose(bert.encode(TEXTS, batch_tokens=1), vectors, atol=1e-5)
    unit = bert.encode(TEXTS, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(
        unit * np.linalg.norm(vectors, axis=-1, keepdims=True), vectors, 1e-4
    )
    prompted = bert.encode(["world"], prompt="hello ")
    np.testing.assert_allclose(prompted, bert.encode(["hello world"]), atol=1e-5)


def test_names_of_sentence_transformers(bert):
    texts = ["a", "b c"]
    plain, unit = bert.encode(texts), bert.encode(texts, normalize=True)
    names = {"batch_size": 2, "show_progress_bar": True, "convert_to_numpy": True}
    np.testing.assert_array_equal(bert.encode(texts, **names), plain)
    np.testing.assert_array_equal(bert.encode(texts, normalize_embeddings=True), unit)
    np.testing.assert_array_equal(bert.encode(texts, normalize_embeddings=False), plain)
    np.testing.assert_array_equal(bert.encode(texts, truncate_dim=5), plain[:, :5])
    for names in ({"truncate_dim": 0}, {"convert_to_numpy": False}):
        with pytest.raises(UserError, match=next(iter(names))):
            bert.encode(texts, **names)
    with pytest.raises(TypeError, match="batchsize"):
        bert.encode(texts, batchsize=3)


def test_long_texts_lose_their_end_but_not_the_separator(bert):
    short = bert.tokenizer.encode(TEXTS, max_length=8)
    assert all(ids[-1] == bert.tokenizer.sep_id and len(ids) <= 8 for ids in short)
    want = [hidden.mean(0) for hidden in bert.hidden(short)]
    np.testing.assert_allclose(bert.encode(TEXTS, max_length=8), want, atol=1e-5)


def test_nothing_in_nothing_out(bert):
    assert bert.encode([]).shape == (0, CONFIG.hidden_size)
    assert bert.hidden([]) == bert.mlm_logits([]) == []
    assert len(bert.hidden(ids for ids in ([1], iter([2])))) == 2
    assert bert.hidden([[]])[0].shape == (0, CONFIG.hidden_size)


def test_fill_mask(bert):
    masks = bert.fill_mask("hello [MASK] there [MASK]", top_k=3)
    assert [len(one) for one in masks] == [3, 3]
    (ids,) = bert.tokenizer.encode(["hello [MASK] there [MASK]"])
    mask = ids.index(bert.tokenizer.mask_id)
    probabilities = np.asarray(jax.nn.softmax(bert.mlm_logits([ids])[0][mask]))
    best = np.argsort(-probabilities)[:3]
    assert [token for token, _ in masks[0]] == [bert.tokenizer.decode([i]) for i in best]
    np.testing.assert_allclose([p for _, p in masks[0]], probabilities[best], rtol=1e-4)
    assert len(bert.fill_mask("[MASK]", top_k=10_000)[0]) == CONFIG.vocab_size


def test_bfloat16_is_close(directory, bert):
    half = ModernBert.from_pretrained(directory, dtype="bfloat16", attention="dense")
    a, b = half.encode(["hello"], normalize=True), bert.encode(["hello"], normalize=True)
    assert 0.99 < (a * b).sum() < 0.999999


@pytest.mark.parametrize("format", ["hf", "jax", "sentence-transformers"])
def test_save_pretrained_keeps_every_bit(tmp_path, format):
    config = tiny.config(num_hidden_layers=7)
    weights = hf_directory.weights(hf_directory.shapes(config), hf_directory.mixed)
    source = hf_directory.write(tmp_path / "source", weights, config)
    ModernBert.from_pretrained(source).save_pretrained(tmp_path / "saved", format)
    a, b = convert.load(source), convert.load(tmp_path / "saved")
    assert a.config == b.config and a.layout.dtypes == b.layout.dtypes != {}
    for path, leaf in names.flatten(a.params).items():
        assert leaf.tobytes() == names.leaf(b.params, path).tobytes()
    with pytest.raises(UserError, match="exists"):
        ModernBert(a).save_pretrained(tmp_path / "saved", format)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.hidden([[1], [2, 320]]), "document 1 has token id 320; ids are 0 to 319"),
        (lambda b: b.mlm_logits([[-1]]), "document 0 has token id -1"),
        (lambda b: b.hidden([[1.9, 2.7]]), r"document 0 holds float64 \[2\]; .* integers"),
        (lambda b: b.mlm_logits([[1], [float("nan")]]), "document 1 holds float64"),
        (lambda b: b.hidden([[1j]]), "document 0 holds complex"),
        (lambda b: b.hidden([[True]]), "document 0 holds bool"),
        (lambda b: b.hidden([[1, [2]]]), "document 0 holds lists"),
        (lambda b: b.hidden([[2**70]]), "document 0 holds"),
        (lambda b: b.hidden([1]), "document 0 holds int64"),
        (lambda b: b.hidden("ab"), "str is given"),
        (lambda b: b.encode("hello"), "give a list of strings"),
        (lambda b: b.encode(["a"], pooling="means"), "did you mean 'mean'"),
        (lambda b: b.encode(["a"], max_length=1), "max_length is 1; it must be 2 or more"),
        (lambda b: b.encode(["a"], batch_tokens=-1), "batch_tokens is -1"),
        (lambda b: b.fill_mask("hello"), r"text has no \[MASK\] to fill"),
        (lambda b: b.fill_mask("[MASK]", top_k=0), "top_k is 0"),
        (lambda b: b.save_pretrained("/nowhere", "hff"), "did you mean 'hf'"),
    ],
)
def test_refusals(bert, call, message):
    with pytest.raises(UserError, match=message):
        call(bert)


def test_what_a_bare_encoder_cannot_do(bare):
    with pytest.raises(UserError, match="no masked-LM head"):
        bare.mlm_logits([[1]])
    with pytest.raises(UserError, match="no tokenizer"):
        bare.encode(["a"])
    assert bare.tokenizer is None


def test_bad_choices(directory):
    with pytest.raises(UserError, match="dtype is 'float16'"):
        ModernBert.from_pretrained(directory, dtype="float16")
    with pytest.raises(UserError, match="did you mean 'dense'"):
        ModernBert.from_pretrained(directory, attention="denso")


def test_a_classifier_gives_hidden_states(tmp_path, bert):
    shapes = hf_directory.shapes(CONFIG, "ModernBertForSequenceClassification")
    source = hf_directory.write(
        tmp_path,
        hf_directory.weights(shapes),
        CONFIG,
        architectures=["ModernBertForSequenceClassification"],
    )
    lists = documents(5, 9)
    states = ModernBert.from_pretrained(source).hidden(lists)
    for one, other in zip(states, bert.hidden(lists), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_hub(directory, monkeypatch):
    asked = {}

    def download(name, **options):
        asked.update(name=name, **options)
        return str(directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert ModernBert.from_pretrained("someone/something", revision="abc").config == CONFIG
    assert (asked["name"], asked["revision"]) == ("someone/something", "abc")
    assert "*.safetensors" in asked["allow_patterns"]

    def fail(*_, **__):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"someone/something: no such directory.*\(no network\)$"):
        ModernBert.from_pretrained("someone/something")
    for path in ("./nothing", "/no/such/directory", "a/b/c"):
        with pytest.raises(UserError, match=r"no such directory$"):
            ModernBert.from_pretrained(path)


def test_devices_share_the_work(directory):
    """Every kind of mesh gives the results of one device, and each device holds its part."""
    program = """
import sys
import types
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from modernbert_jax import ModernBert
from modernbert_jax.sharding import MeshShape

texts = ["hello", "", "a b c d " * 30, "hello world, hello there", "a b"]
def results(**options):
    bert = ModernBert.from_pretrained(sys.argv[1], **options)
    ids = bert.tokenizer.encode(texts)
    return bert.params, [bert.encode(texts), *bert.hidden(ids), *bert.mlm_logits(ids[:1])]

whole, expected = results()
size = lambda params: sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(params))
for sizes in ({}, {"data": 3}, {"data": 2, "tensor": 2}, {"fsdp": 4}, {"context": 2, "tensor": 2}):
    devices = jax.devices()[:3] if sizes == {"data": 3} else None
    mesh = MeshShape(**({"data": 1} | sizes if sizes else {})).make(devices)
    params, arrays = results(mesh=mesh)
    error = max(np.abs(a - b).max(initial=0) for a, b in zip(arrays, expected, strict=True))
    divided = mesh.shape["fsdp"] * mesh.shape["tensor"]
    print(error < 2e-5, size(params) < 1.1 * size(whole) / divided)
"""
    command = [sys.executable, "-c", program, directory]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 10, done.stdout + done.stderr


def test_a_mesh_of_several_processes_is_refused(directory):
    mesh = types.SimpleNamespace(is_multi_process=True)
    with pytest.raises(UserError, match=r"devices of other processes; give jax\.local_devices"):
        ModernBert.from_pretrained(directory, mesh=mesh)
