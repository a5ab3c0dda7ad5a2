"""A bare machine: jax, flax, optax and orbax, a checkout, and nothing installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
ABSENT = ("grain", "array_record", "tyro", "tensorboardX", "zstandard", "torch", "pyarrow")


def test_no_part_imports_the_data_path():
    code = f"""
import sys
sys.modules |= dict.fromkeys({ABSENT!r})
from modernbert_jax.train.bench.device import __main__, registry
import modernbert_jax.train.pretrain.objective
print(len(registry.parts()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
