"""Memory and time of converting a model of a billion parameters, next to copying its file."""

import os
import shutil
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from modernbert_jax import convert
from modernbert_jax.config import PRESETS
from modernbert_jax.convert import flexbert, huggingface, lazy, names
from modernbert_jax.convert.huggingface import weight_files
from modernbert_jax.convert.torch_files import writer
from modernbert_jax.io import files

CONFIG = PRESETS["ettin-1b"]
MAIN = "import sys; from modernbert_jax import cli; sys.exit(cli.main())"
WAYS = {
    "hf to jax": ("hf", "jax", "jax"),
    "jax to hf": ("jax", "back", "hf"),
    "flexbert to hf": ("pt", "from-pt", "hf"),
    "bin to hf": ("bin", "from-bin", "hf"),
    "hf to flexbert": ("hf", "to-pt", "flexbert"),
}


def size(path):
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def random_tensor(seed, shape):
    draw = np.random.default_rng(seed).standard_normal
    return lazy.source(str(seed), shape, "float32", lambda: draw(shape, dtype=np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """4 GB in three formats; takes 30 GB of disk while the tests run."""
    folder = tmp_path_factory.mktemp("large")
    rows = names.table(CONFIG, "masked_lm")
    random = {n: random_tensor(i, row.shape) for i, (n, row) in enumerate(rows.items())}
    checkpoint = convert.Checkpoint(
        config=CONFIG, params=names.to_params(random, rows, "random numbers")
    )
    for name in ("hf", "bin", "pt"):
        (folder / name).mkdir()
    weight_files.write(folder / "hf", random)
    writer.write(folder / "bin" / weight_files.PICKLE, random)
    flexbert.write(checkpoint, folder / "pt")
    for name in ("hf", "bin"):
        files.write_json(folder / name / "config.json", huggingface.config_json(checkpoint))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_memory_and_speed(folder, way):
    source, target, format = WAYS[way]
    before = time.monotonic()
    shutil.copytree(folder / source, folder / "copy")
    copied = time.monotonic() - before
    shutil.rmtree(folder / "copy")
    program = [sys.executable, "-c", MAIN, "convert"]
    before = time.monotonic()
    process = subprocess.Popen([*program, folder / source, folder / target, "--format", format])
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - before
    larger = max(size(folder / source), size(folder / target))
    share = 1024 * usage.ru_maxrss / larger
    worked = usage.ru_utime + usage.ru_stime
    facts = f"{share:.2f} of {larger / 1e9:.2f} GB, {took:.1f} s ({worked:.1f} s of CPU)"
    facts += f", a copy {copied:.1f} s"
    print(f"\n{way}: {facts}")
    assert status == 0
    assert share < 1.3, facts
    if took > 4 * copied:  # other programs may have the disk
        warnings.warn(f"{way} is slow: {facts}", stacklevel=1)
