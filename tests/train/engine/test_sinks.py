"""Files of metrics: TensorBoard can read them, and they survive a full disk."""

import json

import events
import pytest
from tensorboardX.proto import event_pb2

from modernbert_jax.train.engine.sinks import Appender, Events, Lines


def test_tensorboard_reads_the_events(tmp_path):
    board = Events(tmp_path / "new", resume_at=0)
    board.write({"step": 3, "loss": 2.5, "stage": "first", "tokens": 7, "mfu": None})
    board.close()
    head, row = events.read(tmp_path / "new")
    assert head.wall_time > 0 and row.step == 3
    assert {v.tag: v.simple_value for v in row.summary.value} == {"loss": 2.5, "tokens": 7}


def test_steps_after_a_resumption_are_hidden(tmp_path):
    Events(tmp_path, resume_at=8).close()
    _, start = events.read(tmp_path)
    assert start.step == 9 and start.session_log.status == event_pb2.SessionLog.START


@pytest.mark.parametrize("sink", [Lines, lambda path: Events(path, 0)])
def test_a_full_disk_loses_nothing(tmp_path, full_disk, sink):
    writer = sink(tmp_path / "metrics")
    for step in range(1, 40):
        full_disk(10 < step < 30)
        writer.write({"step": step, "loss": 1 / step})
    writer.close()
    if (tmp_path / "metrics").is_dir():
        steps = [event.step for event in events.read(tmp_path / "metrics")][1:]
    else:
        steps = [json.loads(line)["step"] for line in (tmp_path / "metrics").open()]
    assert steps == list(range(1, 40))


def test_a_piece_may_be_written_in_parts(tmp_path):
    class Trickle:
        def __init__(self):
            self.content = b""

        def write(self, piece):
            self.content += piece[:3]
            return len(piece[:3])

    appender = Appender(tmp_path / "file")
    appender._file.close()
    appender._file = trickle = Trickle()
    for piece in (b"one line\n", b"", b"another\n"):
        appender.append(piece)
    assert trickle.content == b"one line\nanother\n"


def test_closing_on_a_full_disk_is_an_error(tmp_path, full_disk):
    appender = Appender(tmp_path / "file")
    full_disk(True)
    appender.append(b"some")
    appender.append(b"thing")
    with pytest.raises(OSError, match="File too large"):
        appender.close()
    full_disk(False)  # later reports may go to a file
    assert (tmp_path / "file").read_bytes() == b"s"
