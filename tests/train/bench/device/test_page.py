"""docs/results/hardware.md and the README are what the records give."""

from pathlib import Path

import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.train.bench.device import page

ROOT = Path(__file__).parents[4]


def test_the_page_is_what_its_generator_gives():
    assert (ROOT / page.PAGE).read_text() == page.page(page.read_all(ROOT))


def test_the_readme_holds_the_summary():
    readme = (ROOT / "README.md").read_text()
    assert page.with_summary(readme, page.read_all(ROOT)) == readme


def test_a_readme_without_marks_is_refused():
    with pytest.raises(UserError, match="marks"):
        page.with_summary("# Title\n", [])
