"""The choice of an implementation, its reasons, and tuning files."""

import functools
import json
import logging

import calls
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.attention import (
    IMPLEMENTATIONS,
    attention,
    check_name,
    choice,
    choose,
    has_forward_mode,
    key_ranges,
    tuning,
)
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM
from modernbert_jax.implementations import Implementations


@pytest.fixture(autouse=True)
def forgetful():
    """Choices are remembered, and logged once: each test starts without any."""
    choose.cache_clear()
    yield
    choose.cache_clear()


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """Write a user's tuning file, and name it in the environment."""

    def write(table, name="tuning.json"):
        path = tmp_path / name
        path.write_text(table if isinstance(table, str) else json.dumps(table))
        monkeypatch.setenv(tuning.VARIABLE, str(path))
        choose.cache_clear()
        return path

    return write


call = functools.partial(calls.call, length=1024, heads=12, symmetric=True)


CPU = {"platform": "cpu", "device_kind": "cpu", "dtype": "float32"}


@pytest.fixture
def without_two_block(monkeypatch):
    """Leaves a single implementation to fall back on, so that the test knows which."""
    monkeypatch.setattr(choice, "PREFERENCE", {"gpu": ("pallas_triton", "xla_range")})


# --- names -----------------------------------------------------------------------------------


def test_a_name_that_is_not_an_implementation():
    with pytest.raises(UserError, match="'xla_rang'; did you mean 'xla_range'"):
        check_name("xla_rang")
    with pytest.raises(UserError, match="did you mean 'dense'"):
        choose("dens", call())


def test_every_preference_is_an_implementation():
    for names in choice.PREFERENCE.values():
        assert set(names) <= set(IMPLEMENTATIONS)
        assert names[-1] == "xla_range"


@pytest.mark.parametrize("name", ["dense", "xla_range", "pallas_triton"])
def test_what_is_asked_for_is_used(name):
    assert choose(name, call()).name == name
    assert choose(name, call()).why == "asked for"


def test_what_is_asked_for_is_refused_rather_than_replaced():
    with pytest.raises(UserError) as refusal:
        choose("pallas_triton", call(head_dim=48))
    assert str(refusal.value) == (
        "attention 'pallas_triton' cannot be used: heads of 48 in bfloat16; "
        "it has tiles for 32, 64, 128; 'auto' finds one"
    )


def test_a_kernel_that_is_refused_computes_nothing():
    x = jnp.zeros((1, 64, 2, 48))
    ranges = key_ranges(jnp.ones((1, 64), jnp.int32))
    with pytest.raises(UserError, match="heads of 48"):
        attention(x, x, x, ranges, implementation="pallas_triton")


# --- auto ------------------------------------------------------------------------------------


def test_auto_takes_what_the_platform_prefers():
    assert choose("auto", call(**CPU)).name == "xla_range"
    assert choose("auto", call(**CPU)).why == "default on cpu"
    assert choose("auto", call()).name == "pallas_triton"


@pytest.mark.parametrize("head_dim", [32, 128])
def test_other_widths_of_heads(head_dim):
    assert choose("auto", call(head_dim=head_dim)).name == "pallas_triton"
    assert choose("auto", call(**CPU, head_dim=head_dim)).name == "xla_range"


def test_auto_falls_back_and_says_why(without_two_block):
    chosen = choose("auto", call(head_dim=48))
    assert chosen.name == "xla_range"
    assert chosen.why.startswith("not pallas_triton: heads of 48 in bfloat16")


def test_what_this_jax_lacks_is_passed_over(monkeypatch, without_two_block):
    def missing(known, name):
        if name == "pallas_triton":
            raise ImportError("no Triton here")
        return original(known, name)

    original = Implementations.module_of
    monkeypatch.setattr(Implementations, "module_of", missing)
    chosen = choose("auto", call())
    assert chosen.name == "xla_range"
    assert chosen.why == "not pallas_triton: it cannot be imported (no Triton here)"


def test_an_unknown_platform_is_served_by_xla(monkeypatch):
    monkeypatch.setattr(choice, "_ELSEWHERE", ("xla_range",))
    assert choose("auto", call(platform="abacus", device_kind="wood")).name == "xla_range"


# --- saying so -------------------------------------------------------------------------------


def test_a_choice_is_logged_once(caplog):
    caplog.set_level(logging.INFO, "modernbert_jax.attention")
    for _ in range(3):
        choose("auto", call())
    choose("auto", call(window=128, head_dim=32))
    assert [record.message for record in caplog.records] == [
        "attention over documents, 1024 tokens x 12 heads x 64, bfloat16: "
        f"pallas_triton ({choose('auto', call()).why})",
        "attention within 128, 1024 tokens x 12 heads x 32, bfloat16: "
        "pallas_triton (default on gpu)",
    ]


def test_the_layers_of_a_model_are_logged_once_for_each_kind(caplog):
    caplog.set_level(logging.INFO, "modernbert_jax.attention")
    rows = tiny.rows([[9, 5]], 16)
    module = MaskedLM(tiny.config(), Runtime(attention="dense", sliding_attention="xla_range"))
    jax.eval_shape(module.init, jax.random.key(0), *rows)
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert any("over documents" in line and ": dense (asked for)" in line for line in messages)
    assert any("within 8" in line and ": xla_range (asked for)" in line for line in messages)


# --- tuning ----------------------------------------------------------------------------------


def test_our_own_file_is_good():
    table = tuning._read(tuning.Path(tuning.__file__).with_name("tuning.json"))
    for device, entries in table.items():
        for name, entry in entries.items():
            kind, *more = name.split(" ")
            facts = {"window": 128 if kind == "sliding" else None, "device_kind": device}
            facts["platform"] = "gpu" if device.startswith("NVIDIA") else "tpu"
            if more:
                facts["head_dim"] = int(more[0])
            for implementation, _ in entry.options:
                choose(implementation, call(**facts))


def test_the_users_file_chooses(tuned):
    tuned({"NVIDIA H100": {"full": {"implementation": "xla_range"}}})
    chosen = choose("auto", call())
    assert (chosen.name, chosen.why) == ("xla_range", "tuned")
    assert choose("auto", call(window=128)).name == "pallas_triton"
    assert choose("auto", call(device_kind="NVIDIA A100-SXM4-80GB")).name == "pallas_triton"


def test_a_tuned_implementation_that_cannot_is_passed_over(tuned, without_two_block):
    tuned({"NVIDIA H100": {"full": {"implementation": "pallas_triton"}}})
    assert choose("auto", call()).why == "tuned"
    chosen = choose("auto", call(head_dim=48))
    assert chosen.name == "xla_range"
    assert "not pallas_triton" in chosen.why


def test_the_longest_name_of_a_device_counts(tuned):
    tuned(
        {
            "NVIDIA": {"full": {"pallas_triton": {"fwd_q": 64}}},
            "NVIDIA H100 PCIe": {"full": {"pallas_triton": {"fwd_q": 256}}},
            "NVIDIA H100": {"full": {"pallas_triton": {"fwd_q": 128}}},
        }
    )
    assert choose("auto", call()).options == (("fwd_q", 128),)
    assert choose("auto", call(device_kind="NVIDIA L40")).options == (("fwd_q", 64),)


def test_the_more_special_entry_counts(tuned):
    def options(q):
        return {"pallas_triton": {"fwd_q": q}}

    tuned(
        {
            "NVIDIA": {
                "full": options(64),
                "full 128": options(128),
                "full 128 float16": options(256),
                "sliding": options(512),
            }
        }
    )
    chosen = {
        (facts.get("head_dim"), facts.get("dtype")): dict(choose("auto", call(**facts)).options)
        for facts in ({}, {"head_dim": 128}, {"head_dim": 128, "dtype": "float16"})
    }
    assert [chosen[key]["fwd_q"] for key in chosen] == [64, 128, 256]
    assert choose("auto", call(window=128)).options == (("fwd_q", 512),)


def test_the_options_reach_the_kernel(tuned):
    tuned({"cpu": {"full": {"pallas_triton": {"fwd_q": 8}}}})
    x = jnp.zeros((1, 64, 1, 64))
    with pytest.raises(UserError, match="fwd_q is 8; it must be a power of two of at least 16"):
        attention(x, x, x, key_ranges(jnp.ones((1, 64), jnp.int32)), implementation="pallas_triton")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ({"NVIDIA": 1}, "NVIDIA: a JSON object is needed, not int"),
        ({"NVIDIA": {"global": {}}}, "NVIDIA.global: an entry is named by sliding or full"),
        ({"NVIDIA": {"full wide": {}}}, "NVIDIA.full wide: an entry is named by"),
        ({"NVIDIA": {"full": 1}}, "NVIDIA.full: a JSON object is needed"),
        ({"NVIDIA": {"full": {"implementation": 1}}}, "implementation is 1; it must be a name"),
        ({"NVIDIA": {"full": {"dense": []}}}, "NVIDIA.full.dense: a JSON object is needed"),
        ({"NVIDIA": {"full": {"dense": {"a": "1"}}}}, "dense.a is '1'; a positive integer"),
        ({"NVIDIA": {"full": {"dense": {"a": True}}}}, "a positive integer is needed"),
        ({"NVIDIA": {"full": {"dense": {"a": 0}}}}, "a positive integer is needed"),
        (
            {"NVIDIA": {"full": {"implementation": "pallas_tritn"}}},
            "tuning of full attention on NVIDIA H100 80GB HBM3: no implementation 'pallas_tritn'; "
            "did you mean 'pallas_triton'",
        ),
        (
            {"NVIDIA": {"full": {"pallas_triton": {"fwd_x": 64}}}},
            "pallas_triton has no option 'fwd_x'; did you mean 'fwd_",
        ),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tuned, table, message):
    path = tuned(table)
    with pytest.raises(UserError) as refusal:
        choose("auto", call())
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value) or "H100" in str(refusal.value)


def test_a_file_that_is_not_there(tuned, monkeypatch, tmp_path):
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        choose("auto", call())


def test_a_runtime_can_force_the_kinds_apart():
    runtime = Runtime(attention="xla_range", sliding_attention="two_block")
    kinds = ModernBertConfig().layer_kinds
    asked = [runtime.attention_of(kind) for kind in kinds[:4]]
    assert asked == ["xla_range", "two_block", "two_block", "xla_range"]


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_forward_mode_is_what_the_choice_says(name):
    """Directional derivatives exist where the choice reports them; "auto" reports none."""
    assert not has_forward_mode("auto")
    if not has_forward_mode(name):
        return
    q = jnp.ones((1, 64, 2, 32))
    ranges = key_ranges(jnp.ones((1, 64), jnp.int32), 8)
    _, tangent = jax.jvp(
        lambda q: attention(q, q, q, ranges, window=8, implementation=name), (q,), (q,)
    )
    assert np.isfinite(tangent).all()


def test_the_benchmark_can_sweep_the_tiles_of_gpus():
    module = choice.module_of("pallas_triton")
    assert {name for group in module.SWEEP for options in group for name in options} <= {
        *module.OPTIONS
    }
