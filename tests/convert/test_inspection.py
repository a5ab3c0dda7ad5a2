"""What `inspect` prints."""

from modernbert_jax.convert import inspection


def test_texts_of_others_are_shown_as_they_are(capsys):
    row = {"name": "[bold]x[/]", "shape": [1], "dtype": "float32", "count": 1}
    facts = {
        **dict.fromkeys(("path", "format", "head", "dtype"), "[/x]"),
        "parameter_count": 1,
        "config": {},
        "extra": {"[/key]": "[/x] oops :smile: \x1b[2J", "long": "y" * 10**6},
        "pipeline": None,
        "tokenizer": None,
        "parameters": [row],
    }
    inspection.show(facts)
    out = capsys.readouterr().out
    assert "[/x] oops :smile: \\x1b[2J" in out and "[/key]" in out and "[bold]x[/]" in out
    assert "\x1b" not in out and len(out) < 40_000
