"""Checks of texts and names, and their display where markup is read."""

import pytest
from rich.console import Console

from modernbert_jax.errors import LONGEST, UserError
from modernbert_jax.io import text


def test_texts_that_can_be_encoded_are_returned():
    for sound in ("", "a", "é😀\0\n", "\U0010ffff"):
        assert text.check_text(sound, "x") == sound


@pytest.mark.parametrize("half", ["\ud800", "a\udfff", "\udce9"])
def test_half_a_surrogate_pair_is_refused(half):
    with pytest.raises(UserError, match=r"f:1: not UTF-8: has \\ud"):
        text.check_text(half, "f:1")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("", "empty"),
        (None, "NoneType"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x1b[1m", "control character"),
        ("x" * 5000, "5,000 bytes"),
        ("é" * 128, "256 bytes"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_names_that_no_file_can_have(name, key):
    with pytest.raises(UserError, match=key) as caught:
        text.check_name(name, "label")
    assert str(caught.value).startswith("label: ") and len(str(caught.value)) < 200


def test_other_names_are_returned():
    for name in ("a", "B-PER", "naïve", "[/x]", "$x$", "x" * 255):
        assert text.check_name(name) == name


def test_long_errors_keep_their_beginning_and_end():
    message = str(UserError("begin" + "x" * 10**6 + "end"))
    assert message.startswith("begin") and message.endswith("end") and len(message) < LONGEST + 50
    assert str(UserError("x" * LONGEST)) == "x" * LONGEST
    assert str(UserError("two \n lines\n")) == "two lines"


def test_rich_shows_texts_as_they_are(capsys):
    for shown in ("[/x] oops", "[bold]", ":smile:", "a\\"):
        console = Console(width=80)
        console.print(text.for_terminal(shown))
        assert capsys.readouterr().out == shown + "\n"
    assert str(text.for_terminal("\x1b[2J")) == "\\x1b[2J"


def test_matplotlib_shows_texts_as_they_are():
    from matplotlib.cbook import is_math_text

    for shown in ("$x_{$", "$", "a $5 b $6"):
        assert not is_math_text(text.for_plot(shown))
