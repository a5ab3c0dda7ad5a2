"""`average`: the mean of checkpoints."""

import numpy as np
import pytest
import tiny

from modernbert_jax import UserError, cli, convert
from modernbert_jax.convert import names


def save(folder, name, seed, format="hf", dtype=np.float32, **changes):
    config = tiny.config(num_hidden_layers=2, **changes)
    shapes = names.shapes(names.table(config, "masked_lm"))
    rng, params = np.random.default_rng(seed), {}
    for path, shape in shapes.items():
        names.put(params, path, rng.standard_normal(shape).astype(dtype))
    convert.save(convert.Checkpoint(config=config, params=params), folder / name, format)
    return folder / name


def test_the_mean_of_several_formats(tmp_path, capsys):
    paths = [save(tmp_path, f"c{i}", i, format) for i, format in enumerate(("hf", "jax", "hf"))]
    command = ["average", *map(str, paths), "--output", str(tmp_path / "soup")]
    assert cli.main(command) == 0 and "mean of 3 checkpoints" in capsys.readouterr().out
    soup = names.flatten(convert.load(tmp_path / "soup").params)
    parts = [names.flatten(convert.load(path).params) for path in paths]
    for path, leaf in soup.items():
        wanted = np.mean([part[path].astype(np.float64) for part in parts], axis=0)
        assert leaf.dtype == np.float32 and np.array_equal(leaf, wanted.astype(np.float32))
    assert cli.main(command) == 2  # it is there already
    assert "exists" in capsys.readouterr().err


def test_the_mean_of_one_checkpoint_with_itself_is_itself(tmp_path):
    path = save(tmp_path, "a", 0)
    assert convert.save(convert.average([path] * 3), tmp_path / "soup") is None
    assert convert.verify(path, tmp_path / "soup", tolerance=0.0).equal


def test_sums_are_not_rounded(tmp_path):
    """In float32 the small value would vanish next to the large ones, which cancel."""
    paths = []
    for i, value in enumerate((3e8, 3.0, -3e8)):
        path = save(tmp_path, f"c{i}", 0)
        checkpoint = convert.load(path)
        checkpoint.params["decoder"]["bias"] = np.full(96, value, np.float32)
        convert.save(checkpoint, tmp_path / f"d{i}")
        paths.append(tmp_path / f"d{i}")
    assert (convert.average(paths).params["decoder"]["bias"] == 1.0).all()


def test_other_architectures_are_refused_in_one_line(tmp_path, capsys):
    a, b = save(tmp_path, "a", 0), save(tmp_path, "b", 0, hidden_size=64)
    c = save(tmp_path, "c", 0, global_rope_theta=10_000.0)
    for other, message in (
        (b, "hidden_size 32 and 64"),
        (c, "global_rope_theta 160000.0 and 10000.0"),
    ):
        assert cli.main(["average", str(a), str(other), "--output", str(tmp_path / "soup")]) == 2
        err = capsys.readouterr().err
        assert message in err and "not of one architecture" in err and err.count("\n") == 1
    with pytest.raises(UserError, match="two checkpoints or more"):
        convert.average([a])
    assert not (tmp_path / "soup").exists()
