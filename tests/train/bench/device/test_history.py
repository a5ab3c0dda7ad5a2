"""Records of devices: what is added, and what became slower."""

import json
from pathlib import Path

import pytest
from device_runs import FACTS, run

from modernbert_jax.errors import UserError
from modernbert_jax.train.bench.device import history, page, table
from modernbert_jax.train.bench.device.results import Number

FIXTURES = Path(__file__).parents[3] / "fixtures" / "device"


def test_the_tables_of_a_recorded_run():
    recorded = history.read_run(FIXTURES / "cpu.json")
    assert table.markdown(recorded) == (FIXTURES / "cpu.md").read_text()


def test_the_table_of_a_run():
    text = table.markdown(run(status="failed"), {"kernels: full": "forward 9 % slower than before"})
    assert text.startswith("# Chip 9000 (PCIe)\n\n- 2026-01-02 03:04 UTC, commit abc, 12 s\n")
    assert "| layer | forward, ms | rate, TFLOP/s | status |" in text
    assert "| full | 1 | 1 | ok: forward 9 % slower than before |" in text
    assert "| base | 100 | failed: ValueError: a / b |" in text
    assert text.index("## Attention times") < text.index("## Training steps")


def test_numbers_are_shown_with_the_digits_that_matter():
    numbers = [(12345.6, "ms"), (0.1234, "ms"), (3e-7, ""), (1.5, "")]
    shown = [table.shown(Number(*n)) for n in numbers]
    assert shown == ["12,346", "0.123", "3.0e-07", "1.500"]
    assert table.shown(Number(float("nan"), "")) == "not finite"


def test_more_than_five_percent_is_slower():
    before = run()
    assert history.slower(run(forward=1.04, speed=96), before) == {}
    remarks = history.slower(run(forward=1.10, speed=50), before)
    assert remarks == {
        "kernels: full": "forward 10 % slower than on 2026-01-02",
        "training: base": "speed 100 % slower than on 2026-01-02",
    }
    assert history.slower(run(speed=50, status="failed"), before) == {}
    assert history.slower(run(), run(forward=0.5, status="failed")).keys() == {"kernels: full"}


def test_runs_are_appended_once(tmp_path):
    for date in ("2026-01-02 03:04", "2026-02-02 03:04", "2026-02-02 03:04"):
        path = history.append(tmp_path / "hardware", run(date))
    assert path.name == "chip-9000-pcie.json"
    assert [r["date"] for r in history.runs(path.parent, FACTS["device"])] == [
        "2026-01-02 03:04",
        "2026-02-02 03:04",
    ]


def test_what_is_no_run_is_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="not a run of bench device"):
        history.read_run(path)
    path.write_text(json.dumps(run() | {"schema": 99}))
    with pytest.raises(UserError, match="schema 99"):
        history.read_run(path)


def test_the_page_shows_the_newest_run_and_what_became_slower():
    newer = run("2026-03-02 03:04", forward=2.0)
    text = page.page([[run(), newer]])
    assert "No run on an accelerator" not in text
    assert "| newest run | Chip 9000 (PCIe) |" in text
    assert "| Attention times | 1 ok |" in text
    assert "| date, commit | 2026-03-02, abc |" in text
    assert "ok: forward 100 % slower than on 2026-01-02" in text
    assert "Earlier runs: 2026-01-02 03:04 (abc)." in text


def test_without_an_accelerator_the_page_says_so():
    assert "No run on an accelerator has been recorded yet." in page.page([])
    on_cpu = run() | {"platform": "cpu", "device": "CPU, Chip, 2 cores"}
    text = page.page([[on_cpu]])
    assert "No run on an accelerator has been recorded yet." in text
    assert "CPU, Chip, 2 cores (tiny shapes, interpreted kernels)" in text
