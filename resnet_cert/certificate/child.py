"""The verifier's own process, `python -m resnet_cert.certificate.child`: its work, within a limit of memory.

One JSON document a line on standard output: what is known so far, and last the answer.  Whatever ends
this process below Python, an abort of a library, the limit, a mapped file that is cut, ends nobody else.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any


def main(path: str, folder: str, budget: float, memory: float, arrays_only: bool) -> None:
    """Verify the certificate or the bundle at `path`; `folder`: an empty one to unpack into."""
    _limit(budget, memory)
    said = sys.stdout

    def say(kind: str, content: Any) -> None:
        said.write(json.dumps({kind: content}) + "\n")
        said.flush()

    from resnet_cert.outcomes import RequestError

    with contextlib.redirect_stdout(sys.stderr):
        try:
            from resnet_cert.certificate.cost import Limits
            from resnet_cert.certificate.decision import decide_file

            limits = Limits.within(budget, memory)
            answer = decide_file(
                Path(path),
                Path(folder),
                arrays_only=arrays_only,
                limits=limits,
                progress=lambda so_far: say("so far", so_far.to_dict()),
            )
            say("answer", answer.to_dict())
        except RequestError as fault:
            places = [(d.message, d.file, d.line, d.column, d.id) for d in fault.diagnostics]
            say("request", places)
        except MemoryError:
            say("memory", None)
        except Exception as fault:
            if isinstance(fault, RuntimeError) and "can't start new thread" in str(fault):
                return say("memory", None)  # for its stack
            frame = traceback.extract_tb(fault.__traceback__)[-1]
            say("internal", f"{type(fault).__name__}: {fault} ({Path(frame.filename).name}:{frame.lineno})")


def _limit(budget: float, memory: float) -> None:
    """No more memory, no time long after the budget should the parent be gone, and no core file."""
    try:
        import resource
    except ModuleNotFoundError:  # not on this system: the estimates alone limit the work
        return
    for what, most in (
        (resource.RLIMIT_AS, int(memory)),
        (resource.RLIMIT_CPU, math.ceil(budget) + 30),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, hard))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "arrays")
