"""Checkpoints: never silently other bytes than were saved, and no disk stops the training."""

import os
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.engine.checkpoint import Checkpoints, SaveFailed
from modernbert_jax.train.engine.guard import Guard
from modernbert_jax.train.engine.state import TrainState


def state(step: int) -> TrainState:
    """Some arrays, other ones at every step."""
    rng = np.random.default_rng(step)
    params = {
        name: jnp.asarray(rng.standard_normal(shape, np.float32))
        for name, shape in {"wide": (64, 256), "norm": (64,), "stacked": (3, 8, 8)}.items()
    }
    return TrainState(jnp.int32(step), params, {"mu": params}, jnp.uint32([1, step]), Guard.new())


def same(a: TrainState, b: TrainState) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def likeness() -> TrainState:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Checkpoints of steps 3, 5 and 8, of which 3 is kept as an edge."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder, keep=2, always=(3,)) as checkpoints:
        for step in (2, 3, 5, 8):
            checkpoints.save(state(step), {"tokens": 10 * step})
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    shutil.copytree(saved, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def restored(folder: Path, said: list[str] | None = None):
    said = [] if said is None else said
    with Checkpoints(folder, keep=2, always=(3,), say=said.append) as checkpoints:
        return checkpoints.restore(likeness())


def test_what_was_saved_comes_back(saved):
    assert sorted(os.listdir(saved)) == ["3", "5", "8"]
    assert all((saved / step / "checksums.json").is_file() for step in ("3", "5", "8"))
    found, progress = restored(saved)
    assert same(found, state(8)) and progress == {"tokens": 80}


def test_nothing_to_resume_from(tmp_path):
    assert restored(tmp_path / "none") is None


def damages(folder: Path, rng: random.Random):
    """Every file of a checkpoint gone, cut and with a bit flipped at several places."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        yield file, None
        yield file, content[: rng.randrange(len(content))]
        for _ in range(3):
            at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
            yield file, content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def test_damage_is_found_or_does_no_harm(saved, copied):
    """Whatever one file of the newest checkpoint suffers, what is read was saved."""
    noticed = 0
    for file, content in damages(saved / "8", random.Random(0)):
        damaged = copied / file.relative_to(saved)
        damaged.write_bytes(content) if content is not None else damaged.unlink()
        said: list[str] = []
        found, progress = restored(copied, said)
        step = int(found.step)
        assert step in (5, 8) and same(found, state(step)), file
        assert progress == {"tokens": 10 * step}
        assert bool(said) == (step == 5), file
        noticed += step == 5
        if step == 5:
            assert sorted(os.listdir(copied)) == ["3", "5", "8.damaged"]
            assert len(said) == 2 and said[0].startswith(f"{copied / '8'}: damaged ("), said
            assert said[1] == f"{copied / '5'}: used instead"
            shutil.rmtree(copied / "8.damaged")
        else:
            assert file.name == "checksums.json" and content is None
            shutil.rmtree(copied / "8")
        shutil.copytree(saved / "8", copied / "8")
    assert noticed >= 40


def test_an_old_one_is_damaged(copied):
    """What would keep Orbax from listing them."""
    (copied / "5" / "_CHECKPOINT_METADATA").write_text("{")
    found, _ = restored(copied, said := [])
    assert same(found, state(8)) and len(said) == 1
    assert sorted(os.listdir(copied)) == ["3", "5.damaged", "8"]


def test_several_are_damaged(copied):
    for step in ("5", "8"):
        next((copied / step / "state" / "d").iterdir()).write_bytes(b"")
    (copied / "8.damaged").mkdir()
    found, _ = restored(copied, said := [])
    assert same(found, state(3)) and len(said) == 3
    assert sorted(os.listdir(copied)) == ["3", "5.damaged", "8.damaged", "8.damaged-2"]


def test_all_are_damaged(copied):
    """None is set aside: a copy may be put back. Nor is the run started anew without a word."""
    for step in ("3", "5", "8"):
        (copied / step / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(UserError, match=r"all checkpoints are damaged: 8, _CHECKPOINT_METADATA is"):
        restored(copied)
    assert sorted(os.listdir(copied)) == ["3", "5", "8"]
    for step in ("3", "5", "8"):
        (copied / step).rename(copied / f"{step}.damaged")
    with pytest.raises(UserError, match=r"8.damaged, set aside before"):
        restored(copied)


def test_what_a_killed_run_was_writing_goes_away(copied):
    (copied / "9.orbax-checkpoint-tmp-123" / "state").mkdir(parents=True)
    assert same(restored(copied)[0], state(8))
    assert sorted(os.listdir(copied)) == ["3", "5", "8"]


def test_a_full_disk_costs_one_checkpoint(tmp_path, full_disk):
    said: list[str] = []
    with Checkpoints(tmp_path / "c", keep=1, say=said.append) as checkpoints:
        checkpoints.save(state(1), {})
        checkpoints._settle()
        full_disk(True)
        checkpoints.save(state(2), {})
        checkpoints._saving.join()
        assert len(said) == 1 and f"{tmp_path / 'c' / '2'}: not saved (" in said[0]
        assert "File too large" in said[0] and said[0].endswith("; training goes on")
        assert "\n" not in said[0]
        checkpoints.save(state(3), {})
        checkpoints._saving.join()
        full_disk(False)
        assert checkpoints.latest() == 1
        checkpoints.save(state(4), {})
        checkpoints.finish()
        assert checkpoints.latest() == 4
    assert len(said) == 2 and os.listdir(tmp_path / "c") == ["4"]
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
