"""Damaged and odd input for every reader ends in success or in a `UserError` of one line.

Readers above libraries that can end the process run in one of their own. `MODERNBERT_JAX_FUZZ` is
the number of inputs of the slow test, of all readers together; seeds are fixed, so that
`python tests/support/fuzzing.py N N+1 READER` repeats an input.
"""

import os
import subprocess
import sys

import fuzzing
import pytest

FAST = 12
"""Inputs of each reader that is tested with all others."""

INPUTS = int(os.environ.get("MODERNBERT_JAX_FUZZ", "100000"))
SHARES = sum(reader.share for reader in fuzzing.READERS.values())


def problems_alone(start: int, stop: int, *names: str) -> list[str]:
    """Outcomes that are wrong, of inputs that are read in another process."""
    found: list[str] = []
    while start < stop:
        child = subprocess.run(
            [sys.executable, fuzzing.__file__, str(start), str(stop), *names],
            capture_output=True,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        lines = child.stdout.splitlines()
        found += [line for line in lines if not line.isdecimal()]
        last = int(lines[-1].split()[0]) if lines else start
        if child.returncode:
            found.append(f"{last} ends the process: {child.returncode} {child.stderr[-300:]}")
        start = last + 1
    return found


def problems(name: str, stop: int) -> list[str]:
    if fuzzing.READERS[name].alone:
        return problems_alone(0, stop, name)
    outcomes = ((number, fuzzing.run(name, number)) for number in range(stop))
    return [f"{number} {problem}" for number, problem in outcomes if problem is not None]


@pytest.mark.parametrize("name", [n for n, r in fuzzing.READERS.items() if not r.alone])
def test_some_inputs(name):
    assert not problems(name, FAST)


def test_some_inputs_of_libraries_that_can_end_the_process():
    assert not problems_alone(0, 4, *(n for n, r in fuzzing.READERS.items() if r.alone))


def test_the_other_process_reports_what_is_wrong(tmp_path):
    script = tmp_path / "fuzzing.py"
    script.write_text("import os, sys\nprint(sys.argv[1], flush=True)\nos.kill(os.getpid(), 9)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzzing, "__file__", str(script))
        assert problems_alone(3, 5, "x") == [f"{n} ends the process: -9 " for n in (3, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzzing.READERS)
def test_many_inputs(name):
    assert not problems(name, max(INPUTS * fuzzing.READERS[name].share // SHARES, 1))
