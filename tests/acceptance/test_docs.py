"""The pages of docs/ say what the tool does: each command and example in them runs; the site is strict."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from reports import leave_out_crosscheck, verify_here
from sessions import assert_is_a_command, assert_prints, assert_python_says, blocks, commands

from resnet_cert import check, load_problem

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {str(page.relative_to(ROOT / "docs")): page.read_text(encoding="utf-8") for page in PAGES}


@pytest.fixture(autouse=True)
def _quickly(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pytestconfig.getoption("--long"):
        leave_out_crosscheck(monkeypatch)
        verify_here(monkeypatch)


@pytest.mark.parametrize("page", [name for name in TEXTS if blocks(TEXTS[name], "console")])
def test_the_sessions_of_a_page_print_what_is_shown(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    for session in blocks(TEXTS[page], "console"):
        assert_prints(session)


@pytest.mark.parametrize(
    ("page", "line"), [(name, line) for name in TEXTS for line in dict.fromkeys(commands(TEXTS[name]))]
)
def test_every_command_shown_is_one(page: str, line: str) -> None:
    assert_is_a_command(line)


@pytest.mark.parametrize("page", [name for name in TEXTS if blocks(TEXTS[name], "pycon")])
def test_the_python_examples_say_what_python_says(page: str) -> None:
    assert_python_says(TEXTS[page], Path(page))


SPECS = [
    (name, text) for name in TEXTS for text in blocks(TEXTS[name], "yaml") if text.startswith("version:")
]


@pytest.mark.parametrize(("page", "text"), SPECS)
def test_the_specs_shown_are_problems(page: str, text: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text, encoding="utf-8")
    assert check(load_problem(spec)).verdict.value == "CERTIFIED"


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_to_a_file_leads_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXTS[page]):
        assert (ROOT / "docs" / page).parent.joinpath(link).exists() or link.startswith("explain/"), link


def test_the_site_is_built_strictly_and_its_formulas_are_drawn(tmp_path: Path) -> None:
    for package in ("mkdocs", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'resnet-cert[docs]'")
    site = tmp_path / "site"
    built = subprocess.run(  # not with -q: what is not logged does not count as a warning
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(site)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    theory = (site / "theory" / "index.html").read_text(encoding="utf-8")
    assert theory.count("<math") >= 40
    assert "\\[" not in theory
    assert "arithmatex" not in theory
    spec = (site / "spec" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in spec for name in ("data", "point", "regularizer", "expect"))
    python = (site / "python" / "index.html").read_text(encoding="utf-8")
    assert "from_arrays" in python
    for page in site.rglob("*.html"):  # nothing is loaded from anywhere else
        assert not re.search(r'(?:src|rel="stylesheet" href)="https?:', page.read_text(encoding="utf-8"))


def test_the_gallery_shows_what_its_commands_draw() -> None:
    text = TEXTS["gallery.md"]
    drawn = re.findall(r"docs/(pictures/\S+)$", text, re.MULTILINE)
    assert drawn == re.findall(r"\]\((pictures/[^)]+)\)", text)
    for picture in drawn:
        assert (ROOT / "docs" / picture).read_bytes().startswith(b"\x89PNG")
