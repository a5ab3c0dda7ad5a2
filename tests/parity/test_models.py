"""Every format, head and family, live, in whichever environment this is.

`make test` compares this library with the stored outputs; here the installed libraries are held to
the same outputs, with the directories as they are and as this library writes them, and what they
save themselves is read.
"""

import warnings

import make_models
import models
import numpy as np
import own
import pytest
import torch
import transformers

from modernbert_jax import convert
from modernbert_jax.convert import names

VERSION = int(transformers.__version__.split(".")[0])
READABLE = [n for n, m in models.MODELS.items() if VERSION > 4 or m.old]
"""The later layout of sentence-transformers, for one, is not for the older one."""

UNREAD = () if VERSION > 4 else ("sparse_native",)
"""Models with a setting that the library of this environment reads from no file: version 5 takes
`max_active_dims` as an argument alone."""

EXPRESSIBLE = [
    n
    for n, m in models.MODELS.items()
    if n not in UNREAD and (n in READABLE or (m.native and m.expressible))
]
"""Models that can be written for this environment; the newer layout is written as the older one
where that has all that they consist of."""

SMALL = [n for n in READABLE if n != "mmbert"]
COMPUTED = ("causal_sequence", "choice", "several", "reranker", "colbert", "colbert_stack",
            "multi_vector_min", "reranker_modules")  # fmt: skip
"""Models, one of each kind, whose files from other libraries are computed here."""


def golden(name):
    stored = np.load(models.GOLDENS / "models.npz")
    return {k.split("/")[1]: stored[k] for k in stored if k.startswith(f"{name}/")}


def assert_close(outputs, want, atol):
    assert outputs.keys() == want.keys()
    for key, array in want.items():
        np.testing.assert_allclose(outputs[key], array, atol=atol, rtol=1e-6, err_msg=key)


def converted(source, folder):
    """Convert to our own format and back."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "transformers 4 has the global theta")
        convert.convert(source, folder / "jax", "jax")
        convert.convert(folder / "jax", folder / "back", "hf")
    return folder / "back"


@pytest.mark.parametrize("name", READABLE)
def test_the_stored_outputs_are_those_of_this_environment(name, tmp_path):
    assert_close(make_models.run(name, models.write(name, tmp_path / "a")), golden(name), 1e-5)


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_what_we_write_computes_the_same(name, tmp_path):
    source = models.write(name, tmp_path / "a")
    outputs = make_models.run(name, converted(source, tmp_path))
    if name in READABLE:
        want = make_models.run(name, source)
        assert outputs.keys() == want.keys()
        for key, array in want.items():
            np.testing.assert_array_equal(outputs[key], array, err_msg=key)
    assert_close(outputs, golden(name), 1e-5)


@pytest.mark.parametrize("name", [n for n in EXPRESSIBLE if models.MODELS[n].kind != "hf"])
def test_what_we_write_from_a_pipeline_computes_the_same(name, tmp_path):
    checkpoint = convert.load(models.write(name, tmp_path / "a"))
    written = convert.with_pipeline(own.without_modules(checkpoint), checkpoint.pipeline)
    convert.save(written, tmp_path / "b")
    assert_close(make_models.run(name, tmp_path / "b"), golden(name), 1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_what_they_save_is_read(name, tmp_path):
    source = models.write(name, tmp_path / "a")
    save(name, source, tmp_path / "b")
    a, b = convert.load(source), convert.load(tmp_path / "b")
    assert (a.config, a.head) == (b.config, b.head)
    left, right = names.flatten(a.params), names.flatten(b.params)
    assert left.keys() == right.keys()
    for path, array in left.items():
        np.testing.assert_array_equal(array, right[path], err_msg="/".join(path))
    if models.MODELS[name].kind != "hf":
        assert (a.pipeline.kind, a.pipeline.late) == (b.pipeline.kind, b.pipeline.late)
    if name in COMPUTED:
        for directory in (tmp_path / "b", converted(tmp_path / "b", tmp_path)):
            assert_close(own.run(name, directory), golden(name), 2e-5)


def save(name, source, directory):
    """Load a model with the installed library and save it in its own layout."""
    kind = models.MODELS[name].kind
    if kind == "hf":
        classes = getattr(transformers, models.MODELS[name].architecture)
        dtype = getattr(torch, models.MODELS[name].dtype)
        classes.from_pretrained(source, dtype=dtype).save_pretrained(directory)
    elif kind == "late" and VERSION == 4:
        from pylate import models as pylate

        pylate.ColBERT(str(source), device="cpu").save(str(directory))
    else:
        import sentence_transformers

        names = {"embedding": "SentenceTransformer", "reranker": "CrossEncoder"}
        names["sparse"] = "SparseEncoder"
        loader = getattr(sentence_transformers, names.get(kind, "MultiVectorEncoder"))
        loader(str(source), device="cpu").save_pretrained(str(directory))
