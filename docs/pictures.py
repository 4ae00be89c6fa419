"""Draw the pictures of docs/gallery.md by the commands that stand there.

python docs/pictures.py
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = re.compile(r"^```sh\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The commands of the gallery, run by this Python."""
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    starts = {"resnet-cert": [sys.executable, "-m", "resnet_cert"], "python": [sys.executable]}
    found = [shlex.split(line) for line in COMMAND.findall(text)]
    return [[*starts[program], *arguments] for program, *arguments in found]


def main() -> None:
    for command in commands():
        subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
