"""Compiling many programs, of which some cannot be, and timing what can."""

import jax.numpy as jnp
import pytest

from modernbert_jax.train.bench.device import timing
from modernbert_jax.train.bench.device.timing import Program


def test_a_program_that_cannot_be_traced_leaves_the_others():
    def wrong(x):
        raise NotImplementedError("no such product")

    x = jnp.ones(3)
    programs = [("a", Program(lambda x: x + 1, (x,))), ("b", Program(wrong, (x,)))]
    compiled = dict(timing.compile_all([*programs, ("c", Program(lambda x: x * 2, (x,)))]))
    assert timing.ready(compiled["a"])(x).tolist() == [2, 2, 2]
    assert timing.ready(compiled["c"])(x).tolist() == [2, 2, 2]
    with pytest.raises(NotImplementedError, match="no such product"):
        timing.ready(compiled["b"])


def test_a_compiler_that_fails_once_is_asked_again():
    class Lowered:
        calls = 0

        def compile(self):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("INTERNAL: Failed to launch ptxas")
            return "program"

    class Failed:
        def result(self):
            return lowered.compile()

    lowered = Lowered()
    assert timing._outcome(lowered, Failed()) == "program"
    lowered.calls = -1  # and again and again
    lowered.compile = lambda: (_ for _ in ()).throw(RuntimeError("no"))
    assert isinstance(timing._outcome(lowered, Failed()), RuntimeError)


def test_short_calls_are_repeated_and_long_ones_are_not(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    calls = []
    taken = timing.seconds(lambda: calls.append(0) or jnp.ones(1), at_least=0.05, repeats=5)
    # Every reading of this clock is a second later: calls are too long to be repeated.
    assert taken == 1.0
    assert len(calls) == 2 + 4  # warming up, choosing the count, and 4 s of repetitions
