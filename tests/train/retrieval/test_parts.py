"""Parts of work on disk: stored once, computed anew for other facts, damaged, without space."""

import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.retrieval.parts import MANIFEST, Parts

NEVER = pytest.fail


def numbers(*values):
    return lambda: {"x": np.array(values)}


def test_a_part_is_computed_once(tmp_path):
    parts = Parts(tmp_path, "work", {"a": 1})
    assert parts.get(3, numbers(1, 2))["x"].tolist() == [1, 2]
    again = Parts(tmp_path, "work", {"a": 1})
    assert again.get(3, NEVER)["x"].tolist() == [1, 2] and again.key == parts.key
    other = Parts(tmp_path, "work", {"a": 2})
    assert other.key != parts.key and other.get(3, numbers(5))["x"].tolist() == [5]
    assert Parts(tmp_path, "work", {"a": 1}).get(3, NEVER)["x"].tolist() == [1, 2]


def test_facts_that_json_writes_otherwise_are_the_same(tmp_path):
    """Such as the skiplist of late interaction, a tuple, which is read back as a list."""
    facts = {"late": {"skiplist": ("!", "?")}}
    Parts(tmp_path, "work", facts).get(0, numbers(1))
    assert Parts(tmp_path, "work", facts).get(0, NEVER)["x"].tolist() == [1]


def test_a_folder_without_its_manifest_is_begun_anew(tmp_path):
    parts = Parts(tmp_path, "work", {"a": 1})
    parts.get(0, numbers(1))
    (parts.folder / MANIFEST).write_text("{")
    assert Parts(tmp_path, "work", {"a": 1}).get(0, numbers(2))["x"].tolist() == [2]


def test_damage_and_a_full_disk_are_named(tmp_path, full_disk):
    parts = Parts(tmp_path, "work", {"a": 1})
    full_disk(True)
    with pytest.raises(UserError, match=r"000000.npz: cannot be written"):
        parts.get(0, numbers(1))
    full_disk(False)
    assert not parts.path(0).exists()
    parts.get(0, numbers(1))
    parts.path(0).write_bytes(parts.path(0).read_bytes()[:-30])
    with pytest.raises(UserError, match=r"000000.npz: is damaged"):
        parts.get(0, NEVER)
