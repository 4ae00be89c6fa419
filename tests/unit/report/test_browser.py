"""The HTML report in a real browser, at the widths of a desktop and of a phone, light and dark."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest
from reports import certified, refuted, undecided

from resnet_cert.report import Style, formatter

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=2000",
)
MEASURE = """<script>onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const color = getComputedStyle(page.body).color + " on " + getComputedStyle(page.body).backgroundColor;
  const cut = [...page.querySelectorAll("span, td, th, p")].filter(e => e.scrollWidth > e.clientWidth + 1 &&
    getComputedStyle(e).display != "inline" && !e.classList.contains("track"));
  const texts = cut.map(e => e.textContent).join(";");
  document.title = page.documentElement.scrollWidth + "|" + color + "|" + texts;
}</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def measured(html: str, width: int, dark: bool, folder: Path) -> tuple[int, str, str]:
    """The width of the page, its colours, and the texts that are cut off, in a window of that width."""
    harness = folder / "harness.html"
    frame = f'<iframe style="border:0;width:{width}px;height:800px" srcdoc="{escape(html)}"></iframe>'
    harness.write_text(f"<!doctype html><title></title>{MEASURE}{frame}", encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [str(CHROMIUM), *FLAGS, scheme, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    ran = subprocess.run(
        [*command, harness.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r"<title>(\d+)\|(.*?)\|(.*?)</title>", ran.stdout, re.DOTALL)
    assert found is not None, ran.stderr
    return int(found[1]), found[2], found[3]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)], ids=["desktop", "phone"])
def test_the_page_fits_the_window_and_nothing_is_cut_off(width: int, dark: bool, tmp_path: Path) -> None:
    html = formatter("html").check([certified(), refuted(), undecided()], Style())
    wide, color, cut = measured(html, width, dark, tmp_path)
    assert wide <= width
    assert cut == ""
    assert color == (
        "rgb(230, 237, 243) on rgb(13, 17, 23)" if dark else "rgb(31, 35, 40) on rgb(255, 255, 255)"
    )
