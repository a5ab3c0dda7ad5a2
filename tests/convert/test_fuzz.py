"""Readers on damaged files: a readable error or the correct result, and never a traceback.

A byte is changed, removed or inserted anywhere in a sound file, or a value in its JSON.
Reading it must end in a `UserError` of one line, or give tensors of the same names, shapes and
dtypes. Where the format has checksums over the weights (our own, and torch's archives) they must
be the same bits as well; in safetensors, which have none, only tensors with a changed byte may
differ. Configurations have no checksums: another sound value is another sound model.
"""

import contextlib
import functools
import json
import shutil
import warnings

import hf_directory
import numpy as np
import pytest
import tiny
import torch_archive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import FIXTURES, GOLDENS

from modernbert_jax import convert
from modernbert_jax.convert import names
from modernbert_jax.convert.flexbert import research_file
from modernbert_jax.convert.huggingface import safetensors_file, weight_files
from modernbert_jax.convert.torch_files import archives, pickle_names, pickles, writer
from modernbert_jax.errors import UserError

CONFIG = tiny.config(
    vocab_size=24, hidden_size=8, intermediate_size=6, num_hidden_layers=4, num_attention_heads=2
)
FORMATS = ("hf", "bin", "jax", "flexbert")
fuzzed = functools.partial(
    settings,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A directory for each format with the same small model."""
    folder = tmp_path_factory.mktemp("sound")
    weights = hf_directory.weights(hf_directory.shapes(CONFIG), hf_directory.mixed)
    hf_directory.write(folder / "source", weights, CONFIG)
    for format in ("hf", "jax", "flexbert"):
        convert.convert(folder / "source", folder / format, format=format)
    shutil.copytree(folder / "hf", folder / "bin")
    (folder / "bin/model.safetensors").unlink()
    writer.write(folder / "bin/pytorch_model.bin", weights)
    return folder


@functools.cache
def truth(path):
    return names.flatten(convert.load(path).params)


def weights_file(directory):
    """The file of a directory with most of the weights."""
    candidates = (p for p in directory.rglob("*") if p.is_file() and p.suffix != ".json")
    return max(candidates, key=lambda p: p.stat().st_size)


def load(path, later=False):
    """Parameters by path, or None if they are refused; anything else is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return names.flatten(convert.load(path, later=later).params)
        except UserError as error:
            assert "\n" not in str(error), error
            assert str(error)
            return None


def damaged(draw, content: bytes) -> bytes:
    """The content with a byte changed, a piece removed or inserted, or the end cut off."""
    at = draw(st.integers(0, len(content) - 1))
    kind = draw(st.sampled_from(("flip", "cut", "insert", "end", "zeros")))
    if kind == "flip":
        value = content[at] ^ draw(st.integers(1, 255))
        return content[:at] + bytes([value]) + content[at + 1 :]
    length = draw(st.integers(1, 64))
    if kind == "cut":
        return content[:at] + content[at + length :]
    if kind == "zeros":
        return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]
    if kind == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=64)) + content[at:]
    return content[:at]


ODD = (
    2**40,
    2**70,
    10**400,
    1e300,
    float("inf"),
    float("nan"),
    -1,
    0,
    "x",
    None,
    [],
    [[]],
    {},
    True,
)


@pytest.mark.parametrize("value", ODD)
def test_every_key_with_odd_values(sound, tmp_path, value):
    """Configurations of both kinds, one key at a time."""
    shutil.copytree(sound / "hf", tmp_path / "hf")
    content = json.loads((sound / "hf/config.json").read_text()) | {
        "id2label": {},
        "rope_scaling": {},
    }
    for key in content:
        (tmp_path / "hf/config.json").write_text(json.dumps(content | {key: value}))
        load(tmp_path / "hf", later=True)
    archive = archives.Archive(FIXTURES / "flexbert/tiny_stage1.pt")
    about = archive.value["state"]["integrations"]["huggingface"]["model"]["config"]
    for key in (content := about["content"]):
        about["content"] = content | {key: value}
        with contextlib.suppress(UserError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            research_file.from_archive(archive, tmp_path)


@pytest.mark.parametrize("value", [2**40, float("nan"), "x", []])
def test_every_key_of_our_own_format_with_odd_values(sound, tmp_path, value):
    shutil.copytree(sound / "jax", tmp_path / "jax")
    for file in ("config.json", "modernbert_jax.json"):
        raw = (tmp_path / "jax" / file).read_text()
        for path in places(content := json.loads(raw)):
            if len(path) < 3:
                (tmp_path / "jax" / file).write_text(json.dumps(replaced(content, path, value)))
                load(tmp_path / "jax", later=True)
        (tmp_path / "jax" / file).write_text(raw)


@pytest.mark.parametrize("format", FORMATS)
@fuzzed(max_examples=40)
@given(data=st.data())
def test_damaged_weights(sound, tmp_path, format, data):
    path = tmp_path / format
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(sound / format, path)
    file = weights_file(path)
    content = file.read_bytes()
    new = damaged(data.draw, content)
    file.write_bytes(new)
    params, want = load(path), truth(sound / format)
    if params is None:
        return
    assert [*params] == [*want]
    for place, x in params.items():
        assert (x.shape, x.dtype) == (want[place].shape, want[place].dtype)
        if format != "hf":
            assert x.tobytes() == want[place].tobytes(), place
    if format == "hf":
        assert len(new) == len(content)
        assert changed_tensors(params, want) <= hit_tensors(file, content, new)


def changed_tensors(params, want):
    """The safetensors names of the parameters, or members of stacks, that differ."""
    rows = names.table(CONFIG, "masked_lm")
    trees = [{}, {}]
    for tree, flat in zip(trees, (params, want), strict=True):
        for place, x in flat.items():
            names.put(tree, place, x)
    one, two = (names.to_tensors(tree, rows) for tree in trees)
    return {n for n in rows if one[n].tobytes() != two[n].tobytes()}


def hit_tensors(file, content, new):
    """The tensors that contain a changed byte."""
    entries, start, _ = safetensors_file.header(file)
    differ = [i - start for i, (a, b) in enumerate(zip(content, new, strict=True)) if a != b]
    spans = {n: e["data_offsets"] for n, e in entries.items()}
    return {n for n, (a, b) in spans.items() if any(a <= i < b for i in differ)}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["float32", "model.", "full_attention", "ModernBertModel", "../x", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
ABSURD = st.sampled_from(
    [10**400, 2**31, 2**40, 2**62, 2**70, 1e300, float("inf"), float("nan"), -1, 0]
)


def places(value, path=()):
    """The path of every value within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize(
    ("format", "file"),
    [
        ("hf", "config.json"),
        ("jax", "config.json"),
        ("jax", "modernbert_jax.json"),
        ("jax", "params/checksums.json"),
        ("sharded", "model.safetensors.index.json"),
    ],
)
@fuzzed(max_examples=40)
@given(data=st.data())
def test_json_of_wrong_types(sound, tmp_path, format, file, data):
    path = tmp_path / format
    shutil.rmtree(path, ignore_errors=True)
    if format == "sharded":
        shutil.copytree(sound / "hf", path)
        tensors = weight_files.read(path)
        (path / "model.safetensors").unlink()
        weight_files.write(path, tensors, shard_bytes=2000)
    else:
        shutil.copytree(sound / format, path)
    content = json.loads((path / file).read_text())
    where = data.draw(st.sampled_from([*places(content)]))
    new = replaced(content, where, data.draw(VALUES | ABSURD))
    (path / file).write_text(json.dumps(new))
    load(path, later=True)


@fuzzed(max_examples=40)
@given(data=st.data())
def test_safetensors_headers_of_wrong_types(sound, tmp_path, data):
    content = (sound / "hf/model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    where = data.draw(st.sampled_from([*places(header)]))
    raw = json.dumps(replaced(header, where, data.draw(VALUES | ABSURD))).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])
    tensors, problems = safetensors_file.scan(file)
    if not problems:
        assert all(np.asarray(x).shape == x.shape for x in tensors.values())


@fuzzed(max_examples=100)
@given(data=st.data())
def test_research_configurations_of_wrong_types(data):
    archive = archives.Archive(GOLDENS / "torch/run.pt")
    about = archive.value["state"]["integrations"]["huggingface"]
    where = data.draw(st.sampled_from([*places(about)]))
    new = replaced(about, where, data.draw(VALUES | ABSURD))
    archive.value["state"]["integrations"]["huggingface"] = new
    try:
        research_file.from_archive(archive, GOLDENS / "torch/run.pt")
    except UserError as error:
        assert "\n" not in str(error)


@fuzzed(max_examples=200)
@given(data=st.data())
def test_damaged_pickles(data):
    """The value has only types that the reader builds."""
    allowed = {dict, list, tuple, str, int, float, bool, bytes, type(None)}
    allowed |= {pickle_names.Inert, pickle_names.Storage, pickle_names.Tensor}
    try:
        value = pickles.read(damaged(data.draw, torch_archive.ONE))
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert {type(x) for x in walk(value)} <= allowed


def walk(value):
    yield value
    if type(value) in (dict, list, tuple):
        for inner in [*value, *value.values()] if type(value) is dict else value:
            yield from walk(inner)


@fuzzed(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_pickle(content):
    try:
        pickles.read(b"\x80\x02" + content)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "x.pt"])
@fuzzed(max_examples=40)
@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]))
def test_bytes_that_are_no_weights(sound, tmp_path, name, content, start):
    shutil.copy(sound / "hf/config.json", tmp_path)
    (tmp_path / name).write_bytes(start + content)
    path = tmp_path / name if name.endswith(".pt") else tmp_path
    assert load(path) is None
