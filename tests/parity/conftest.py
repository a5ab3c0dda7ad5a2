"""Live comparisons with the PyTorch libraries: collected by `make parity` alone.

There, with MODERNBERT_JAX_PARITY=1, a library that is missing is an error and nothing is skipped.
TRANSFORMERS4 names a folder with transformers 4, beside the version 5 of the environment.
"""

import os
import sys
from pathlib import Path

if os.environ.get("MODERNBERT_JAX_PARITY") == "1":
    import torch
    import transformers

    assert transformers.__version__.startswith("5."), transformers.__version__
    assert (Path(os.environ["TRANSFORMERS4"]) / "transformers").is_dir()
    sys.path.insert(0, str(Path(__file__).parents[1] / "goldens"))
    torch.set_num_threads(2)
else:
    collect_ignore_glob = ["test_*.py"]
