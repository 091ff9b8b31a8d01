"""Reference pages say what the code says."""

from __future__ import annotations

import pytest

from tests.docs import PAGES, REFERENCE


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_reference_page_is_what_the_code_makes_of_it(name):
    assert PAGES[name]() == (REFERENCE / name).read_text(), "run: python -m tests.docs"
