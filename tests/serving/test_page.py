"""The page at / in a real browser, for every kind of model."""

import browser
import pytest
import serving
from serving import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="no Chromium is installed"),
]

SHOWN = {
    "mean": {"similarity"},
    "colbert": {"similarity", "rerank"},
    "sparse": {"similarity"},
    "reranker": {"rerank"},
    "sequence": {"predict"},
    "masked_lm": {"similarity", "fill-mask"},
    "token": {"token-classification"},
    "span": {"question-answering"},
}
"""Panels of each kind of model."""

VISIBLE = "[...document.querySelectorAll('section')].filter(s => !s.hidden).map(s => s.id).sort()"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("profile")) as own:
        yield own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def opened(page, port: int, **size) -> None:
    page.messages.clear()
    page.open(f"http://127.0.0.1:{port}/", **size)
    page.until("document.title.startsWith('tiny/')")


def submitted(page, panel: str) -> str:
    page.run(f"document.querySelector('#{panel} button').click()")
    return page.until(f"document.querySelector('#{panel} .result').innerText")


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("width", [1280, 375], ids=["desktop", "phone"])
def test_panels_work(page, folder, name, width, tmp_path):
    """Each panel gives a result, nothing is wider than the window, and nothing leaves it."""
    with serving.running(serving.service(name, folder, real=False)) as port:
        opened(page, port, width=width)
        assert page.until(f"({VISIBLE}).length && {VISIBLE}") == sorted(SHOWN[name])
        for panel in SHOWN[name]:
            result = submitted(page, panel)
            rows = page.run(
                f"document.querySelectorAll('#{panel} .result tbody tr,"
                f" #{panel} .result .bar').length"
            )
            assert rows >= 3, result
        page.screenshot(tmp_path / f"{name}-{width}.png")
        assert page.run("document.documentElement.scrollWidth") <= width
        assert not page.problems()


def test_texts_are_shown_as_texts(page, folder):
    """A text with markup stays a text."""
    with serving.running(serving.service("mean", folder, TINY, real=False)) as port:
        opened(page, port)
        page.run(
            "document.getElementById('texts').value = '<img src=x onerror=alert(1)>\\n<b>b</b>'"
        )
        assert "<img src=x" in submitted(page, "similarity")
        assert page.run("document.querySelectorAll('.result img, .result b').length") == 0
        assert not page.problems()


def test_refusals_are_shown(page, folder):
    with serving.running(serving.service("masked_lm", folder, real=False)) as port:
        opened(page, port)
        page.run("document.getElementById('masked').value = 'no mask'")
        assert "no [MASK] to fill" in submitted(page, "fill-mask")
        assert page.run("document.querySelector('#fill-mask button').disabled") is False


def test_the_page_asks_for_a_key(page, folder):
    with serving.running(serving.service("mean", folder, real=False), ["one-key"]) as port:
        page.open(f"http://127.0.0.1:{port}/")
        page.until("!document.getElementById('key-panel').hidden")
        page.run("document.getElementById('key').value = 'one-key'")
        page.run("document.querySelector('#key-form button').click()")
        page.until("document.title.startsWith('tiny/')")
        assert page.run(VISIBLE) == ["similarity"]
        assert submitted(page, "similarity")
