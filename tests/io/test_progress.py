"""The progress display without a terminal."""

from modernbert_jax.io import progress


def test_lines_count_steps(capsys):
    with progress.Progress(3) as bar:
        bar.update("train", 1, "loss 2.0")
        bar.update("train", 2, "loss 1.5")
        bar.update("train", 3, "loss 1.0")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["train  step 1/3  loss 2.0", "train  step 3/3  loss 1.0"]


def test_a_short_transfer_prints_nothing(capsys):
    with progress.transfer("reading") as advance:
        advance(1, 2)
        advance(2, 2)
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_where_it_is_switched_off(capsys):
    with progress.Progress(1, shown=False) as bar:
        bar.update("train", 1)
        bar.say("a line")
    assert capsys.readouterr().err == ""
