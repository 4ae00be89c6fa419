"""Functions that a spec takes from Python files of the user's: run only when that was allowed."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.spec.arrays import existing
from resnet_cert.spec.faults import Refused, shortened, suggestion


def load_function(folder: Path, reference: str, *, allow_code: bool) -> Callable[..., Any]:
    """The function that FILE.py:FUNCTION names, FILE.py relative to `folder`.

    Raises:
        Refused: if code is not allowed, or the file, its execution or the function fails.
    """
    if not allow_code:
        wanted = f"expected --allow-code (allow_code=True in Python) to run {reference}"
        raise Refused(wanted, "code-not-allowed")
    name, _, function_name = reference.rpartition(":")
    path = existing(folder, name)
    with running(folder, reference):
        module = _execute(path)
    function = getattr(module, function_name, None)
    if function is None:
        functions = [
            word for word, value in vars(module).items() if callable(value) and not word.startswith("_")
        ]
        hint = suggestion(function_name, functions)
        raise Refused(f"no function {function_name!r} in {name}{hint}", "unknown-name")
    if not callable(function):
        got = type(function).__name__
        raise Refused(f"expected a function {function_name!r} in {name}, got {got}", "code-result")
    return function


def _execute(path: Path) -> ModuleType:
    """The file as a module under a name of its own; beside it, it finds other modules."""
    path = path.absolute()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    module = ModuleType(f"_resnet_cert_user_{path.stem}_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    finally:
        sys.path.remove(str(path.parent))
        for name in set(sys.modules) - before:  # another folder may have a module of the same name
            if path.parent in Path(getattr(sys.modules[name], "__file__", None) or "").parents:
                del sys.modules[name]
    return module


@contextlib.contextmanager
def running(folder: Path, reference: str) -> Iterator[None]:
    """Around a call of the user's code: an exception becomes `Refused` with its file and line, and what the
    code prints goes to standard error, where it mixes with no result."""
    name = reference.rpartition(":")[0]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Refused:
        raise
    except RequestError as error:
        raise Refused("; ".join(map(_placed, error.diagnostics)), error.diagnostics[0].id) from None
    except (Exception, SystemExit) as error:
        raise Refused(f"{name}{_line(error, folder / name)}: {_words(error)}", "code-failed") from None


def _line(error: BaseException, path: Path) -> str:
    """:LINE of the innermost frame in the user's file."""
    path = path.absolute()
    if isinstance(error, SyntaxError) and Path(error.filename or "") == path:
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    return f":{lines[-1]}" if lines else ""


def _placed(diagnostic: Diagnostic) -> str:
    place = "" if diagnostic.file is None else f"{Path(diagnostic.file).name}:{diagnostic.line}: "
    return place + diagnostic.message


def _words(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {shortened(text, 200)}" if text else type(error).__name__
