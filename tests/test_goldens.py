"""Packed rows here against single documents in transformers 5, stored by `goldens/make.py`."""

import functools

import cases
import numpy as np
import pytest
from reference import document_tokens, loss_and_gradients, parameters

from modernbert_jax.config import ModernBertConfig


@functools.cache
def computed(name: str):
    config = ModernBertConfig.from_hf(cases.hf_config(name))
    params = parameters(config, functools.partial(cases.weight, name))
    return loss_and_gradients(config, cases.batch(name), params)


@pytest.mark.parametrize("name", cases.CASES)
def test_a_packed_batch_equals_transformers_on_each_document(name):
    golden = np.load(cases.FOLDER / f"{name}.npz")
    ours, stored = computed(name), cases.stored_positions(name)
    tokens = document_tokens(name)
    for key in ("hidden", "logits"):
        np.testing.assert_allclose(ours[key][tokens][stored], golden[key], atol=1e-5, rtol=0)
    np.testing.assert_allclose(ours["loss"], golden["loss"], rtol=2e-6)


@pytest.mark.parametrize("name", cases.CASES)
def test_gradients_equal_transformers(name):
    golden = np.load(cases.FOLDER / f"{name}.npz")
    grads = computed(name)["grads"]
    assert {f"grad/{tensor}" for tensor in grads} == {k for k in golden if k.startswith("grad/")}
    for tensor, grad in grads.items():
        want = golden[f"grad/{tensor}"]
        got = grad.reshape(-1)[cases.stored_entries(name, tensor, grad.size)]
        assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want), tensor
        norm = golden[f"norm/{tensor}"]
        np.testing.assert_allclose(np.linalg.norm(grad), norm, rtol=3e-6, err_msg=tensor)
