"""Workers that take turns, with a script that only counts."""

import pytest

from modernbert_jax.train.bench.turns import take_turns

WORKER = """
import json, sys
print(json.dumps({"side": sys.argv[1], "turn": 0}), flush=True)
for turn, _ in enumerate(sys.stdin, 1):
    print(json.dumps({"side": sys.argv[1], "turn": turn}), flush=True)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return path


@pytest.mark.parametrize("together", [True, False])
def test_every_side_has_a_turn_in_each_round(script, together):
    ready, turns = take_turns(script, (), ("ours", "peer"), 3, together)
    assert {side: answer["turn"] for side, answer in ready.items()} == {"ours": 0, "peer": 0}
    for side, answers in turns.items():
        assert answers == [{"side": side, "turn": n} for n in (1, 2, 3)]


def test_no_round_begins_after_long_ones(script):
    _, turns = take_turns(script, (), ("ours", "peer"), 3, enough=0.0)
    assert [len(answers) for answers in turns.values()] == [1, 1]


def test_a_worker_that_ends_early_is_named(script):
    script.write_text("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="ours ended with exit code 3"):
        take_turns(script, (), ("ours",), 1)
