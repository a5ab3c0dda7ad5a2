"""Checkpoints: damage is never read silently, and a full disk does not stop training."""

import os
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.io import checksums, orbax_files
from modernbert_jax.train.engine.checkpoint import Checkpoints, SaveFailed
from modernbert_jax.train.engine.guard import Guard
from modernbert_jax.train.engine.state import TrainState


def state(step: int) -> TrainState:
    """A state whose arrays are different at every step."""
    rng = np.random.default_rng(step)
    params = {
        name: jnp.asarray(rng.standard_normal(shape, np.float32))
        for name, shape in {"wide": (64, 256), "norm": (64,), "stacked": (3, 8, 8)}.items()
    }
    return TrainState(jnp.int32(step), params, {"mu": params}, jnp.uint32([1, step]), Guard.new())


def same(a: TrainState, b: TrainState) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def template() -> TrainState:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Checkpoints of steps 3, 5 and 8; step 3 is in `always`."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder, keep=2, always=(3,)) as checkpoints:
        for step in (2, 3, 5, 8):
            checkpoints.save(state(step), {"tokens": 10 * step})
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    shutil.copytree(saved, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def restored(folder: Path, messages: list[str] | None = None):
    messages = [] if messages is None else messages
    with Checkpoints(folder, keep=2, always=(3,), say=messages.append) as checkpoints:
        return checkpoints.restore(template())


def test_a_saved_state_is_restored(saved):
    assert sorted(os.listdir(saved)) == ["3", "5", "8"]
    assert all((saved / step / "checksums.json").is_file() for step in ("3", "5", "8"))
    loaded, progress = restored(saved)
    assert same(loaded, state(8)) and progress == {"tokens": 80}


def test_without_checkpoints_nothing_is_restored(tmp_path):
    assert restored(tmp_path / "none") is None


def damages(folder: Path, rng: random.Random):
    """Every file of a checkpoint: removed, truncated, and with a flipped bit at several places."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        yield file, None
        if not content:
            continue
        yield file, content[: rng.randrange(len(content))]
        for _ in range(3):
            at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
            yield file, content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def test_damage_is_detected_or_harmless(saved, copied):
    """A restored state is always one that was saved, however a file is damaged."""
    noticed = 0
    for file, content in damages(saved / "8", random.Random(0)):
        damaged = copied / file.relative_to(saved)
        damaged.write_bytes(content) if content is not None else damaged.unlink()
        messages: list[str] = []
        loaded, progress = restored(copied, messages)
        step = int(loaded.step)
        assert step in (5, 8) and same(loaded, state(step)), file
        assert progress == {"tokens": 10 * step}
        assert bool(messages) == (step == 5), file
        noticed += step == 5
        if step == 5:
            assert sorted(os.listdir(copied)) == ["3", "5", "8.damaged"]
            assert len(messages) == 2 and messages[0].startswith(f"{copied / '8'}: damaged ("), (
                messages
            )
            assert messages[1] == f"{copied / '5'}: used instead"
            shutil.rmtree(copied / "8.damaged")
        else:
            assert file.name == "checksums.json" and content is None
            shutil.rmtree(copied / "8")
        shutil.copytree(saved / "8", copied / "8")
    assert noticed >= 40


def test_an_older_checkpoint_is_damaged(copied):
    """Damage that would keep Orbax from listing checkpoints."""
    (copied / "5" / "_CHECKPOINT_METADATA").write_text("{")
    loaded, _ = restored(copied, messages := [])
    assert same(loaded, state(8)) and len(messages) == 1
    assert sorted(os.listdir(copied)) == ["3", "5.damaged", "8"]


def test_several_checkpoints_are_damaged(copied):
    for step in ("5", "8"):
        next((copied / step / "state" / "d").iterdir()).write_bytes(b"")
    (copied / "8.damaged").mkdir()
    loaded, _ = restored(copied, messages := [])
    assert same(loaded, state(3)) and len(messages) == 3
    assert sorted(os.listdir(copied)) == ["3", "5.damaged", "8.damaged", "8.damaged-2"]


def test_all_checkpoints_are_damaged(copied):
    """None is set aside, so copies may be put back; the run does not silently start again."""
    for step in ("3", "5", "8"):
        (copied / step / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(UserError, match=r"all checkpoints are damaged: 8, _CHECKPOINT_METADATA is"):
        restored(copied)
    assert sorted(os.listdir(copied)) == ["3", "5", "8"]
    for step in ("3", "5", "8"):
        (copied / step).rename(copied / f"{step}.damaged")
    with pytest.raises(UserError, match=r"8.damaged, set aside before"):
        restored(copied)


def test_strays_and_remains_are_set_aside(copied):
    """A file, an empty folder, and one without checksums that lacks some of its data."""
    (copied / "100").write_text("x")
    (copied / "99").mkdir()
    (copied / "8" / "checksums.json").unlink()
    next((copied / "8" / "state" / "d").iterdir()).unlink()
    (copied / "007").mkdir()  # no name of a checkpoint
    loaded, _ = restored(copied, messages := [])
    assert same(loaded, state(5))
    assert sorted(os.listdir(copied)) == [
        *("007", "100.damaged", "3", "5", "8.damaged", "99.damaged")
    ]
    assert [("is no folder" in m, "state is missing" in m) for m in messages[:2]] == [
        (True, False),
        (False, True),
    ]


def test_a_stray_file_alone_is_no_lost_checkpoint(tmp_path):
    (tmp_path / "100").write_text("x")
    for _ in range(2):
        assert restored(tmp_path) is None
    assert os.listdir(tmp_path) == ["100.damaged"]


def test_a_checkpoint_of_an_earlier_version_has_no_checksums(copied):
    (copied / "8" / "checksums.json").unlink()
    loaded, progress = restored(copied, messages := [])
    assert same(loaded, state(8)) and progress == {"tokens": 80} and not messages


@pytest.mark.parametrize("name", ["runs [2]", "a*b?", "100%#?"])
def test_names_are_names(tmp_path, name):
    """Orbax takes brackets for a pattern, and writes no index."""
    folder = tmp_path / name / "checkpoints"
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(state(1), {"tokens": 1})
        checkpoints.save(state(2), {"tokens": 2})
    assert sorted(os.listdir(folder)) == ["2"]
    loaded, progress = restored(folder)
    assert same(loaded, state(2)) and progress == {"tokens": 2}


def test_what_cannot_be_read_back_is_not_saved(tmp_path, monkeypatch):
    """And the checkpoint before it is kept."""
    with Checkpoints(tmp_path / "c", keep=1, say=(messages := []).append) as checkpoints:
        checkpoints.save(state(1), {})
        checkpoints.finish()
        monkeypatch.setattr(checksums, "write", spoiled(checksums.write))
        checkpoints.save(state(2), {})
        checkpoints._settle()
        monkeypatch.undo()
        assert os.listdir(tmp_path / "c") == ["1"] and checkpoints.latest() == 1
        assert len(messages) == 1 and "2: not saved (" in messages[0] and "_METADATA" in messages[0]
        checkpoints.save(state(3), {})
    assert os.listdir(tmp_path / "c") == ["3"]


def spoiled(write):
    """Lose a byte after the checksums are written."""

    def spoiling(folder):
        write(folder)
        file = folder / "state" / "_METADATA"
        file.write_bytes(file.read_bytes()[:-1])

    return spoiling


def test_a_missing_index_is_noticed(copied):
    shutil.rmtree(copied / "8" / "state" / "d")
    (copied / "8" / "state" / "manifest.ocdbt").unlink()
    assert "index" in orbax_files.index_damage(copied / "8" / "state")
    assert orbax_files.index_damage(copied / "5" / "state", content=True) is None
    assert "arrays of 99" in orbax_files.index_damage(copied / "5" / "state", 99)


def test_unfinished_checkpoints_of_a_killed_run_are_removed(copied):
    for name in ("9.orbax-checkpoint-tmp-123", "9.unfinished", "2.old.unfinished"):
        (copied / name / "state").mkdir(parents=True)
    assert same(restored(copied)[0], state(8))
    assert sorted(os.listdir(copied)) == ["3", "5", "8"]


def test_a_full_disk_costs_one_checkpoint(tmp_path, full_disk):
    messages: list[str] = []
    with Checkpoints(tmp_path / "c", keep=1, say=messages.append) as checkpoints:
        checkpoints.save(state(1), {})
        checkpoints._settle()
        full_disk(True)
        checkpoints.save(state(2), {})
        checkpoints._saving.join()
        assert len(messages) == 1 and f"{tmp_path / 'c' / '2'}: not saved (" in messages[0]
        assert "File too large" in messages[0] and messages[0].endswith("; training continues")
        assert "\n" not in messages[0]
        checkpoints.save(state(3), {})
        checkpoints._saving.join()
        full_disk(False)
        assert checkpoints.latest() == 1
        checkpoints.save(state(4), {})
        checkpoints.finish()
        assert checkpoints.latest() == 4
    assert len(messages) == 2 and os.listdir(tmp_path / "c") == ["4"]
    assert same(restored(tmp_path / "c")[0], state(4))


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path, full_disk):
    message = r"the last checkpoint could not be written \(.*File too large.*\); the newest is that"
    with pytest.raises(SaveFailed, match=message):  # noqa: SIM117
        with Checkpoints(tmp_path / "c", keep=1, say=lambda line: None) as checkpoints:
            checkpoints.save(state(1), {})
            checkpoints._settle()
            full_disk(True)
            checkpoints.save(state(2), {})
    full_disk(False)
    assert os.listdir(tmp_path / "c") == ["1"]
    assert same(restored(tmp_path / "c")[0], state(1))
