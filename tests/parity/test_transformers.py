"""Transformers 5 in this process and 4 in another, against this library."""

import functools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import cases
import make
import numpy as np
import pytest
import torch
from reference import document_tokens, loss_and_gradients, parameters
from safetensors.numpy import load_file

from modernbert_jax import convert, hf_config, tokenizer
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names

SCRIPT = Path(__file__).parent / "in_transformers.py"
VERSIONS = ("4", "5")
REGULAR = [name for name in cases.CASES if name not in ("irregular", "stretched")]
"""Cases that version 4 can express."""

OLD = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
NEW = ("layer_types", "rope_parameters")
"""Keys of `config.json` that one version writes and the other does not."""

EXCHANGED = ("every_second", "biases", "untied", "window_127", "thetas")
"""Cases that each version saves."""

TEXTS = [
    "",
    "The capital of France is [MASK].",
    "  two  spaces\tand\ttabs\n\nand lines ",
    "naïve façade — Größe, 日本語, 🙂 e\u0301",
    "def f(x):\n    return x ** 2  # square\n",
    "[CLS] written by hand [SEP] [PAD] and [UNK]",
]


def transformers(version: str, folder: Path, jobs: list[tuple]) -> None:
    """Run the jobs in this version of transformers, in one process: importing it is slow."""
    (folder / "jobs.json").write_text(json.dumps([[str(x) for x in job] for job in jobs]))
    path = os.environ["TRANSFORMERS4"] if version == "4" else ""
    paths = [p for p in (path, os.environ.get("PYTHONPATH")) if p]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "jobs.json")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{version}."), done.stdout


def config_of(name: str) -> ModernBertConfig:
    return ModernBertConfig.from_hf(cases.hf_config(name))


def checkpoint_of(name: str, **more) -> convert.Checkpoint:
    params = parameters(config_of(name), functools.partial(cases.weight, name))
    return convert.Checkpoint(config=config_of(name), params=params, head="masked_lm", **more)


@functools.cache
def ours(name: str):
    config = config_of(name)
    params = parameters(config, functools.partial(cases.weight, name))
    return loss_and_gradients(config, cases.batch(name), params)


@functools.cache
def own_tokenizer() -> tokenizer.Tokenizer:
    return tokenizer.train(TEXTS * 3, 300, max_length=512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder of the outputs of both versions; see the paths in `exchange` and `back`."""
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def exchange(folder) -> Path:
    """`ours/CASE`, written here; `V/CASE`, saved by version V; `V/CASE.npz` of what is ours."""
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    for name in cases.CASES:
        ids = [d.token_ids.tolist() for d in cases.documents(name)]
        (folder / f"{name}.json").write_text(json.dumps(ids))
        files = own_tokenizer().files if name == "silu" else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*transformers 4")
            convert.save(checkpoint_of(name, files=files), folder / "ours" / name, "hf")
    for version in VERSIONS:
        here = folder / version
        here.mkdir()
        jobs = [("tokens", folder / "ours/silu", folder / "texts.json", here / "tokens.json")]
        for name in REGULAR if version == "4" else cases.CASES:
            ids = folder / f"{name}.json"
            jobs.append(("logits", folder / "ours" / name, ids, here / f"{name}.npz"))
        for name in EXCHANGED:
            theirs = hf_config.write(config_of(name), {})
            theirs = {k: v for k, v in theirs.items() if k not in (NEW if version == "4" else OLD)}
            (here / f"{name}.json").write_text(json.dumps(theirs))
            jobs.append(("save", name, here / f"{name}.json", here / name))
        transformers(version, folder, jobs)
    return folder


@pytest.fixture(scope="module")
def back(exchange) -> Path:
    """`V/CASE-back`: what version V saved, by way of our own format; `.npz` by the other one."""
    for version, other in zip(VERSIONS, reversed(VERSIONS), strict=True):
        jobs, here = [], exchange / version
        for name in EXCHANGED:
            convert.save(convert.load(here / name), here / f"{name}-jax", "jax")
            convert.save(convert.load(here / f"{name}-jax"), here / f"{name}-back", "hf")
            out = here / f"{name}-back.npz"
            jobs.append(("logits", here / f"{name}-back", exchange / f"{name}.json", out))
        transformers(other, exchange, jobs)
    return exchange


def check_close(name: str, outputs) -> None:
    tokens = document_tokens(name)
    for key in ("hidden", "logits"):
        np.testing.assert_allclose(ours(name)[key][tokens], outputs[key], atol=2e-5, rtol=0)


# --- the model -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.CASES)
def test_all_positions_and_all_gradients(name):
    live = make.run(name, torch.float32)
    check_close(name, live)
    np.testing.assert_allclose(ours(name)["loss"], live["loss"], rtol=2e-6)
    assert live["grads"].keys() == ours(name)["grads"].keys()
    for tensor, want in live["grads"].items():
        error = np.linalg.norm(ours(name)["grads"][tensor] - want)
        assert error <= 2e-5 * np.linalg.norm(want), tensor


@pytest.mark.parametrize("name", cases.CASES)
def test_the_stored_goldens_are_what_transformers_gives(name):
    golden, live = np.load(cases.FOLDER / f"{name}.npz"), make.run(name, torch.float64)
    stored = cases.stored_positions(name)
    for key in ("hidden", "logits"):
        np.testing.assert_allclose(golden[key], live[key][stored], atol=1e-6, rtol=0)
    for tensor, grad in live["grads"].items():
        entries = cases.stored_entries(name, tensor, grad.size)
        want, norm = grad.reshape(-1)[entries], np.linalg.norm(grad)
        np.testing.assert_allclose(golden[f"grad/{tensor}"], want, atol=1e-6 * norm)
        np.testing.assert_allclose(golden[f"norm/{tensor}"], norm, rtol=1e-6)


def test_the_stored_frequencies_are_what_transformers_gives():
    golden, live = np.load(cases.FOLDER / "rope.npz"), make.ropes()
    assert {*golden} == live.keys()
    for name, want in live.items():
        np.testing.assert_allclose(golden[name], want, rtol=3e-7)


# --- directories -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGULAR)
def test_both_versions_load_what_we_write(name, exchange):
    old, new = (np.load(exchange / version / f"{name}.npz") for version in VERSIONS)
    for key in ("hidden", "logits"):
        np.testing.assert_array_equal(old[key], new[key])
    check_close(name, new)


@pytest.mark.parametrize("name", sorted({*cases.CASES} - {*REGULAR}))
def test_version_5_loads_what_only_it_can_express(name, exchange):
    check_close(name, np.load(exchange / "5" / f"{name}.npz"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", EXCHANGED)
def test_we_load_what_both_versions_save(version, name, exchange):
    loaded = convert.load(exchange / version / name)
    assert loaded.config == config_of(name)
    flat, want = (names.flatten(c.params) for c in (loaded, checkpoint_of(name)))
    assert flat.keys() == want.keys()
    for path, x in flat.items():
        np.testing.assert_array_equal(x, want[path], err_msg="/".join(path))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", EXCHANGED)
def test_there_and_back_is_the_same_bits(version, name, back):
    first, last = (
        load_file(back / version / directory / "model.safetensors")
        for directory in (name, f"{name}-back")
    )
    assert first.keys() == last.keys()
    for tensor, want in first.items():
        assert want.dtype == last[tensor].dtype
        np.testing.assert_array_equal(last[tensor], want, err_msg=tensor)
    check_close(name, np.load(back / version / f"{name}-back.npz"))


@pytest.mark.parametrize("version", VERSIONS)
def test_token_ids_are_equal(version, exchange):
    own = own_tokenizer()
    theirs = json.loads((exchange / version / "tokens.json").read_text())
    assert theirs["ids"] == own.encode(TEXTS)
    assert theirs["longest"] == 512
    for role, token_id in theirs["special"].items():
        assert token_id == getattr(own, f"{role}_id"), role
