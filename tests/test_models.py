"""Every format, head and family against what transformers and sentence-transformers computed."""

import functools
import warnings

import models
import numpy as np
import own
import pytest

from modernbert_jax import convert
from modernbert_jax.convert import names


@functools.cache
def goldens() -> dict[str, np.ndarray]:
    return dict(np.load(models.GOLDENS / "models.npz"))


def golden(name: str) -> dict[str, np.ndarray]:
    return {k.split("/")[1]: v for k, v in goldens().items() if k.startswith(f"{name}/")}


@pytest.mark.parametrize("name", models.MODELS)
def test_outputs_are_those_of_the_libraries(name, tmp_path):
    outputs, want = own.run(name, models.write(name, tmp_path / "model")), golden(name)
    assert outputs.keys() == want.keys()
    for key, array in want.items():
        np.testing.assert_allclose(outputs[key], array, atol=2e-5, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", [n for n in models.MODELS if n != "mmbert"])
def test_there_and_back_is_the_same_model(name, tmp_path):
    source = models.write(name, tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "transformers 4 has the global theta")
        convert.convert(source, tmp_path / "jax", "jax")
        convert.convert(tmp_path / "jax", tmp_path / "back", "hf")
    a, b = convert.load(source), convert.load(tmp_path / "back")
    assert (a.config, a.head, a.pipeline) == (b.config, b.head, b.pipeline)
    left, right = (names.flatten(c.params) for c in (a, b))
    assert left.keys() == right.keys()
    for path, array in left.items():
        assert array.dtype == right[path].dtype and array.tobytes() == right[path].tobytes(), path
    for file in sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file()):
        # The configuration is written for all versions; the later layout becomes the older one.
        if file.name != "config.json" and not models.MODELS[name].native:
            assert (tmp_path / "back" / file).read_bytes() == (source / file).read_bytes(), file
    files = {p.relative_to(tmp_path / "jax") for p in (tmp_path / "jax").rglob("*config.json")}
    wanted = {p.relative_to(source) for p in source.rglob("*config.json")}
    assert wanted <= files
