"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from docs import settings_page, states_page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("module", [states_page, settings_page])
def test_a_generated_page_is_up_to_date(module: ModuleType) -> None:
    assert module.PAGE.read_text() == module.page(), "run `make picture`"


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_the_picture_is_a_real_export_of_rich_and_asks_nobody_for_anything() -> None:
    svg = (DOCS / "fleet.svg").read_text()
    assert "rich-terminal" in svg
    assert "ACTIVE" in svg
    assert "@font-face" not in svg
