"""Losses of retrieval on other inputs than the goldens', live against sentence-transformers 6."""

import functools

import jax
import loss_cases
import make_retrieval
import numpy as np
import pytest

SEEDS = (1, 2)


@pytest.mark.parametrize("name", loss_cases.CASES)
def test_losses_equal_those_of_sentence_transformers(name):
    @jax.jit
    def compute(columns, targets, **options):
        loss = functools.partial(loss_cases.loss_of(name), targets=targets, **options)
        return jax.value_and_grad(loss)(columns)

    for seed in SEEDS:
        given = loss_cases.inputs(name, seed)
        options = {"mask": given.mask} | ({} if given.guide is None else {"guide": given.guide})
        value, gradient = compute(given.columns, given.targets, **options)
        expected, expected_gradient = make_retrieval.of_case(name, given)
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)
        largest = max(np.abs(expected_gradient).max(), 1e-3)
        np.testing.assert_allclose(gradient, expected_gradient, atol=5e-5 * largest)
