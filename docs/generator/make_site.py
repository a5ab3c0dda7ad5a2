"""Builds the site of the documentation with Sphinx: python docs/generator/make_site.py

The pages are copied to build/docs. Those that are made from the code (the reference of commands, of
configuration fields and of Python), and those of the repository's root, are added there. Nothing is
fetched, and any warning, such as a broken link, is an error.
"""

import re
import shutil
import sys
from pathlib import Path

import contents
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
SOURCE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"

SETTINGS = {
    "project": "modernbert-jax",
    "html_title": "modernbert-jax",
    "html_theme": "furo",
    "highlight_language": "text",
    "html_copy_source": False,
    "extensions": ["myst_parser"],
    "myst_heading_anchors": 4,
    "suppress_warnings": ["misc.highlighting_failure"],
}


def menu() -> str:
    """The sections of the menu, as Sphinx reads them."""
    trees = []
    for caption, pages in contents.SECTIONS.items():
        lines = "\n".join(pages.split())
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```")
    return "\n\n".join(trees) + "\n"


def generated() -> dict[str, str]:
    """Pages that are made from the code, by their path."""
    import api
    import commands
    import fields

    return {
        "reference/commands.md": commands.page(),
        "reference/configuration.md": fields.page(),
        **{f"reference/api/{name}.md": api.page(name) for name in api.PAGES},
    }


def of_root(name: str) -> str:
    """A page of the repository's root, with links as pages of the site have them."""
    return re.sub(r"\]\(docs/", "](", (ROOT / name).read_text())


def prepare() -> None:
    """Copy the pages, and add the others."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    skip = shutil.ignore_patterns("generator", "*.json", "*.ipynb", "__pycache__")
    shutil.copytree(ROOT / "docs", SOURCE, ignore=skip)
    pages = generated()
    pages["index.md"] = (SOURCE / "index.md").read_text() + "\n" + menu()
    pages["changelog.md"] = of_root("CHANGELOG.md")
    pages["contributing.md"] = of_root("CONTRIBUTING.md")
    for path, content in pages.items():
        (SOURCE / path).parent.mkdir(parents=True, exist_ok=True)
        (SOURCE / path).write_text(content)


def main() -> int:
    """Build the site; the exit code is 1 if there were warnings."""
    prepare()
    shutil.rmtree(SITE, ignore_errors=True)
    site = Sphinx(
        SOURCE,
        None,
        SITE,
        SITE.parent / "doctrees",
        "html",
        confoverrides=SETTINGS,
        status=None,
        freshenv=True,
        warningiserror=True,
    )
    site.build()
    if not site.statuscode:
        print(f"{SITE.relative_to(ROOT)}/index.html")
    return site.statuscode


if __name__ == "__main__":
    sys.exit(main())
