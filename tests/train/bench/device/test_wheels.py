"""Wheels for a machine without network; nothing is downloaded here."""

from pathlib import Path

import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.train.bench.device import wheels


@pytest.fixture
def downloads(monkeypatch):
    """Stands in for pip and git: a wheel of 1 MB for every package."""
    calls = []

    def run(*command):
        calls.append(command)
        words = [word for word in command if word.startswith(("--dest=", "--wheel-dir="))]
        if words:
            name = Path(command[-1]).name.split("==")[0]
            (Path(words[0].split("=")[1]) / f"{name}.whl").write_bytes(bytes(10**6))

    monkeypatch.setattr(wheels, "_run", run)
    return calls


def test_every_package_is_asked_for_one_python(downloads, tmp_path):
    folder = tmp_path / "wheels"
    packages = wheels.collect(folder, "3.13")
    assert len(packages) == len(wheels.PACKAGES) + 1
    asked = [command for command in downloads if "download" in command]
    assert len(asked) == len(wheels.PACKAGES)
    assert all("--python-version=3.13" in command and "--no-deps" in command for command in asked)
    (archive,) = (command for command in downloads if "archive" in command)
    assert archive[-1] == "HEAD"
    (folder / "old.whl").touch()
    assert folder / "old.whl" not in wheels.collect(folder, "3.13")


def test_the_commands_install_and_run(tmp_path):
    install, run = wheels.commands(tmp_path / "wheels")
    assert install == "python3 -m pip install --no-index --no-deps wheels/*.whl"
    assert run.startswith("python3 -m modernbert_jax.train.bench.device ")


def test_too_much_is_refused(downloads, tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "LIMIT", 3e6)
    with pytest.raises(UserError, match="it must stay below 3 MB"):
        wheels.collect(tmp_path, "3.12")


def test_a_wrong_version_is_one_line(tmp_path, capsys):
    assert wheels.main(["--python", "three", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "wheels: python is 'three'; give a version such as 3.12\n"
