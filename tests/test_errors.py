"""Helpers for the messages of errors."""

from modernbert_jax.errors import did_you_mean


def test_did_you_mean():
    assert did_you_mean("lable", ["label", "text"]) == "did you mean 'label'?"
    assert did_you_mean("x", ["text", "label"]) == "known: label, text"
    assert did_you_mean("x", []) == "none is known"
