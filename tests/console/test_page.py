"""The page in a real browser, where there is one: it shows what the control knows, as text, and obeys its own rules."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from tests.console.browser import PROGRAM, browser
from tests.console.conftest import Running


@pytest.mark.skipif(PROGRAM is None, reason="no chromium on PATH")
async def test_page_shows_decisions_and_escapes_them(console: Running) -> None:
    async with browser(console.data / "browser") as chromium:
        shown = await chromium.page(f"{console.url}/#{console.token}", "80 % of the last judged decisions")
    assert "the living room is dark &lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert ">Correct</button>" in shown
    assert "Which one?" in shown
    assert re.search(r'<button[^>]*class="primary"[^>]*>lamp dim</button>', shown), "a choice answers with one press"
    assert shown.count(">Right</button>") == 1, "a question is answered, not accepted"
    assert "adapter 3f9c0a1b2c3d (provisional)" in shown
    assert "Learning from 24 examples" in shown
    assert "80 % of 5 decisions were left as they were." in shown
    assert "1 of 5 times somebody came back with the same thing." in shown
    assert "memory off" in shown
    assert "messages 4 to 6 of &lt;b&gt;house&lt;/b&gt; (boot 1) never came" in shown
    assert "12 of 12 words of Eve contradict what others taught" in shown
    assert ">Believe Eve</button>" in shown
    assert console.token not in shown  # it is in the tab's storage, not in the page


def test_page_needs_nobody_else_and_makes_no_markup() -> None:
    """No address of another machine, no inline script or style (the policy forbids them), no text taken as markup."""
    files = {
        name: (resources.files("runtime.console") / name).read_text() for name in ("page.html", "page.js", "page.css")
    }
    for text in files.values():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"<script>|\sstyle=|\son\w+=", files["page.html"])
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\.style\b", files["page.js"])


def test_page_has_every_element_its_script_asks_for() -> None:
    page, script = ((resources.files("runtime.console") / name).read_text() for name in ("page.html", "page.js"))
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(re.findall(r'id="([\w-]+)"', page))
