"""Live comparisons with the PyTorch libraries: collected by `make parity` alone.

There, with MODERNBERT_JAX_PARITY=1, a library that is missing is an error and nothing is skipped.
There are two environments: with transformers 5 and sentence-transformers 6, and with transformers
4, sentence-transformers 5 and PyLate. In the first TRANSFORMERS4 names a folder with transformers 4
besides, for what needs both versions at once.
"""

import os
import sys
from pathlib import Path

if os.environ.get("MODERNBERT_JAX_PARITY") == "1":
    import torch
    import transformers

    if transformers.__version__.startswith("4."):
        collect_ignore = ["test_transformers.py", "test_peft.py", "test_mining.py"]
        collect_ignore += ["test_retrieval_losses.py", "test_mteb.py"]
    else:
        assert transformers.__version__.startswith("5."), transformers.__version__
        assert (Path(os.environ["TRANSFORMERS4"]) / "transformers").is_dir()
    sys.path.insert(0, str(Path(__file__).parents[1] / "goldens"))
    torch.set_num_threads(2)
else:
    collect_ignore_glob = ["test_*.py"]
