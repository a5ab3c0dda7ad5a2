"""Archives of torch without torch: read as torch reads them, or refused with a reason."""

import hashlib
import json
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest
import torch_archive
from reference import GOLDENS

from modernbert_jax.convert import lazy
from modernbert_jax.convert.huggingface import weight_files
from modernbert_jax.convert.torch_files import archives, pickles, writer, zip_entries
from modernbert_jax.errors import UserError

FOLDER = GOLDENS / "torch"
WRITTEN = json.loads((FOLDER / "digests.json").read_text())
"""Dtype, shape and SHA-256 of the bytes of every tensor, as in torch, by file and tensor."""


@pytest.mark.parametrize("file", WRITTEN)
def test_what_torch_wrote(file):
    tensors = archives.state_dict(FOLDER / file)
    assert tensors.keys() == WRITTEN[file].keys()
    for name, (dtype, shape, digest) in WRITTEN[file].items():
        x = np.asarray(tensors[name])
        assert (tensors[name].dtype.name, [*tensors[name].shape]) == (dtype, shape)
        assert (x.dtype.name, [*x.shape]) == (dtype, shape)
        assert hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() == digest


def test_tensors_in_one_place_are_known_to_be_equal():
    tensors = archives.state_dict(FOLDER / "views.bin")
    assert tensors["tied"].key == tensors["table"].key and lazy.equal(
        tensors["tied"], tensors["table"]
    )
    assert tensors["row"].key != tensors["table"].key


def some():
    rng = np.random.default_rng(0)
    dtypes = ("float64", "float32", "float16", "bfloat16")
    return {d: rng.standard_normal((3, 5)).astype(d) for d in dtypes} | {"one": np.float32([7])}


def test_what_is_written_is_read(tmp_path):
    writer.write(tmp_path / "x.bin", {**some(), "again": (x := some()["float32"]), "b": x})
    tensors = archives.state_dict(tmp_path / "x.bin")
    for name, want in some().items():
        assert tensors[name].dtype == want.dtype
        assert np.asarray(tensors[name]).tobytes() == want.tobytes()
    assert tensors["again"].key == tensors["b"].key != tensors["float32"].key


def test_tensors_are_aligned_and_the_bytes_are_always_the_same(tmp_path):
    for name in ("one", "two"):
        writer.write(tmp_path / name, some())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    entries, problems = zip_entries.scan(tmp_path / "one")
    assert not problems
    assert all(e.offset % 64 == 0 for n, e in entries.items() if n.startswith("data/"))
    with zipfile.ZipFile(tmp_path / "one") as archive:
        assert archive.testzip() is None


def test_plain_values_are_written(tmp_path):
    value = {"a": [1, -1, 255, 2**31, -(2**70), 0.5, None, True, False, "ä", ("x", ())]}
    value |= {"b": {}, "c": [], "d": b"\x00\xff"}
    writer.write(tmp_path / "x.pt", value)
    assert archives.Archive(tmp_path / "x.pt").value == value
    with pytest.raises(TypeError, match="a value of type set cannot be written"):
        writer.write(tmp_path / "y.pt", {"a": {1}})


def rewritten(path, change):
    """The archive with every entry passed through `change(ZipInfo, bytes)`."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in entries:
            for new, data in change(info, content):
                archive.writestr(new, data)


def named(name):
    """An entry with another name."""
    return zipfile.ZipInfo(name)


def compressed(info, content):
    info.compress_type = zipfile.ZIP_DEFLATED
    return [(info, content)]


def patched(path, at, content):
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


def central(path, number):
    """Offset of the record of an entry in the central directory."""
    data, at = path.read_bytes(), 0
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


DAMAGE = {
    "path out of the folder": (
        lambda p: torch_archive.write(p, **{"archive/../../evil": b"x"}),
        "entry 'archive/../../evil' is none that torch.save writes",
    ),
    "absolute path": (
        lambda p: torch_archive.write(p, **{"/etc/evil": b"x"}),
        "'/etc/evil' is none",
    ),
    "nested archive": (
        lambda p: torch_archive.write(p, entries={"data/0": torch_archive.SIX, "inner.zip": b"PK"}),
        "entry 'archive/inner.zip' is none",
    ),
    "nested pickle": (
        lambda p: torch_archive.write(p, entries={"other/data.pkl": b""}),
        "entry 'archive/other/data.pkl' is none",
    ),
    "second folder": (
        lambda p: torch_archive.write(p, **{"b/data.pkl": b"."}),
        "'b/data.pkl' is none",
    ),
    "no folder": (lambda p: torch_archive.write(p, **{"data.pkl": b"."}), "'data.pkl' is none"),
    "TorchScript": (
        lambda p: torch_archive.write(p, entries={"constants.pkl": b"."}),
        "a TorchScript program, not weights",
    ),
    "compressed": (
        lambda p: rewritten(torch_archive.write(p), compressed),
        "entry 'archive/data/0' is compressed",
    ),
    "a bomb": (
        lambda p: rewritten(torch_archive.write(p, entries={"data/0": bytes(2**22)}), compressed),
        "is compressed",
    ),
    "big endian": (
        lambda p: torch_archive.write(
            p, entries={"byteorder": b"big", "data/0": torch_archive.SIX}
        ),
        "byteorder is big, not little",
    ),
    "endless byte order": (
        lambda p: torch_archive.write(p, entries={"byteorder": b"little" * 9}),
        "byteorder has 54 bytes; at most 16 are read",
    ),
    "no pickle": (
        lambda p: rewritten(
            torch_archive.write(p), lambda i, c: [] if i.filename.endswith("pkl") else [(i, c)]
        ),
        "has no data.pkl",
    ),
    "no storage": (lambda p: torch_archive.write(p, entries={}), "a: data/0 is missing"),
    "short storage": (
        lambda p: torch_archive.write(p, entries={"data/0": bytes(20)}),
        "a: data/0 has 20 bytes instead of 24",
    ),
    "a list": (
        lambda p: torch_archive.write(p, b"\x80\x02]."),
        "holds a list, not tensors by name",
    ),
    "numbers": (
        lambda p: torch_archive.write(p, b"\x80\x02}K\x01K\x02s."),
        "1 is a int, not a tensor under a name",
    ),
    "before zip": (
        lambda p: p.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF"),
        "a bare pickle, as before",
    ),
    "a pointer": (lambda p: p.write_bytes(b"version https://git-lfs"), "not a file of torch.save"),
    "empty": (lambda p: p.write_bytes(b""), "not a file of torch.save"),
    "zip without a directory": (
        lambda p: p.write_bytes(b"PK\x03\x04" * 20),
        "truncated or damaged",
    ),
    "one storage for two": (
        lambda p: (torch_archive.write(p), patched(p, central(p, 2) + 42, bytes(4))),
        "has no header where the archive says",
    ),
    "encrypted": (
        lambda p: (torch_archive.write(p), patched(p, central(p, 2) + 8, b"\x01\x00")),
        "entry 'archive/data/0' is encrypted",
    ),
    "longer than the file": (
        lambda p: (
            torch_archive.write(p),
            patched(p, central(p, 2) + 20, struct.pack("<2I", 2**30, 2**30)),
        ),
        "entry 'archive/data/0' ends after the file",
    ),
    "over its neighbour": (
        lambda p: (
            torch_archive.write(p),
            patched(p, central(p, 2) + 20, struct.pack("<2I", 90, 90)),
        ),
        "entry 'archive/version' overlaps another",
    ),
}


@pytest.mark.parametrize(("make", "message"), DAMAGE.values(), ids=DAMAGE)
def test_odd_archives(tmp_path, make, message):
    path = tmp_path / weight_files.PICKLE
    make(path)
    with pytest.raises(UserError) as error:
        archives.state_dict(path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == [weight_files.PICKLE]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_twice(tmp_path):
    path = torch_archive.write(tmp_path / "x.bin", **{"archive/data.pkl": torch_archive.ONE})
    with pytest.raises(UserError, match=r"entry 'archive/data\.pkl' is there twice"):
        archives.state_dict(path)


def test_all_problems_are_named(tmp_path):
    odd = {"inner.zip": b"PK", "../evil": b"x", "data/x": b"y"}
    path = torch_archive.write(tmp_path / "x.bin", entries=odd)
    with pytest.raises(UserError) as error:
        archives.state_dict(path)
    assert all(name in str(error.value) for name in odd)


def test_an_oversized_pickle_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "BYTES", 100)
    with pytest.raises(UserError, match=r"data\.pkl has .* bytes; at most 100 are read"):
        archives.state_dict(torch_archive.write(tmp_path / "x.bin"))


def test_a_changed_weight_is_noticed(tmp_path):
    value = {"a": np.arange(6.0), "b": np.arange(4.0), "c": np.arange(3.0)}
    writer.write(tmp_path / "x.bin", value)
    for number in (6, 3):  # the last of a and of b
        at = (tmp_path / "x.bin").read_bytes().index(struct.pack("<d", number - 1))
        patched(tmp_path / "x.bin", at + 1, b"\x01")
    tensors = archives.state_dict(tmp_path / "x.bin")
    np.testing.assert_array_equal(tensors["c"], [0, 1, 2])
    with pytest.raises(UserError, match="the checksums of data/0"):
        np.asarray(tensors["a"])


def test_a_changed_weight_beside_the_part_that_is_used_is_noticed(tmp_path):
    part = torch_archive.tensor(shape=(2,), stride=(1,), offset=1)
    path = torch_archive.write(tmp_path / "x.bin", part)
    np.testing.assert_array_equal(archives.state_dict(path)["a"], [1, 2])
    patched(path, path.read_bytes().index(struct.pack("<f", 5)), b"\x01")
    with pytest.raises(UserError, match="the checksums of data/0 do not match"):
        np.asarray(archives.state_dict(path)["a"])


def test_checksums_that_torch_leaves_out():
    entries, _ = zip_entries.scan(FOLDER / "unchecked.bin")
    assert {e.crc for e in entries.values()} == {0}
    assert zlib.crc32(np.asarray(archives.state_dict(FOLDER / "unchecked.bin")["a"]).tobytes())


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = torch_archive.write(tmp_path / "x.bin")
    tensors = archives.state_dict(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="ended while it was being read"):
        np.asarray(tensors["a"])


def test_shards_of_pickles():
    shards = weight_files.scan(FOLDER / "sharded")
    assert {n: [x.dtype.name, [*x.shape]] for n, x in shards.items()} == {
        "a": ["float32", [2, 3]],
        "b": ["bfloat16", [4]],
    }
    assert np.asarray(shards["b"]).dtype == ml_dtypes.bfloat16


def test_missing_and_misplaced_shards(tmp_path):
    torch_archive.write(tmp_path / "one.bin")
    places = {
        "a": "one.bin",
        "b": "one.bin",
        "c": "two.bin",
        "d": "/etc/x.bin",
        "e": "x.safetensors",
    }
    (tmp_path / weight_files.PICKLE_INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError) as error:
        weight_files.scan(tmp_path)
    for part in (
        "two.bin: no such file",
        "'/etc/x.bin', which is not inside",
        "'x.safetensors', which is not a .bin file",
    ):
        assert part in str(error.value)


def test_safetensors_come_first(tmp_path):
    torch_archive.write(tmp_path / weight_files.PICKLE)
    weight_files.write(tmp_path, {"b": np.ones(3, np.float32)})
    assert [*weight_files.scan(tmp_path)] == ["b"]
