"""MaxSim beside the einsum, in the tiny shapes of a CPU."""

from modernbert_jax.train.bench.device.parts.maxsim_times import maxsim_times
from modernbert_jax.train.bench.device.scale import Scale


def test_portable_maxsim_equals_the_einsum():
    results = list(maxsim_times(Scale(platform="cpu", device_kind="cpu")))
    assert [(r.name, r.status) for r in results] == [("4 einsum", "ok"), ("4 xla", "ok")]
    for result in results:
        assert all(result.numbers[output].value < 1e-5 for output in ("scores", "dq", "dd"))
        assert result.numbers["both"].unit == "ms"
