"""The program as a user runs it, in this process."""

from modernbert_jax import cli


def run(capsys, *words) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *words) -> str:
    """The one line on stderr of a command that fails with wrong input."""
    code, _, err = run(capsys, *words)
    assert code == 2 and len(err.strip().splitlines()) == 1, (code, err)
    assert "Traceback" not in err
    return err
