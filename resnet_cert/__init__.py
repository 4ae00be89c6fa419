"""resnet-cert: is this point of a residual network an ε-second-order stationary point, and what follows?

The public names are loaded when they are first used, so that `import resnet_cert` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_cert.certificate.supervision import verify
    from resnet_cert.check import certify, check
    from resnet_cert.compare.monitor import Monitor
    from resnet_cert.compare.profile import profile
    from resnet_cert.numerics.enclosure import Enclosure
    from resnet_cert.outcomes import RequestError, Verdict
    from resnet_cert.problem.problem import Problem, Support
    from resnet_cert.problem.problem import Problem as VectorProblem
    from resnet_cert.results import Report
    from resnet_cert.search.landscape import landscape
    from resnet_cert.search.sgd import sgd
    from resnet_cert.search.solve import solve
    from resnet_cert.spec import load_problem
    from resnet_cert.theory.bound import bound

__version__ = "0.1.0"

__all__ = [
    "Enclosure",
    "Monitor",
    "Problem",
    "Report",
    "RequestError",
    "Support",
    "VectorProblem",
    "Verdict",
    "__version__",
    "bound",
    "certify",
    "check",
    "landscape",
    "load_problem",
    "profile",
    "sgd",
    "solve",
    "verify",
]

_HOME = {
    "Enclosure": "resnet_cert.numerics.enclosure",
    "Monitor": "resnet_cert.compare.monitor",
    "Problem": "resnet_cert.problem.problem",
    "Report": "resnet_cert.results",
    "RequestError": "resnet_cert.outcomes",
    "Support": "resnet_cert.problem.problem",
    "VectorProblem": "resnet_cert.problem.problem",
    "Verdict": "resnet_cert.outcomes",
    "bound": "resnet_cert.theory.bound",
    "certify": "resnet_cert.check",
    "check": "resnet_cert.check",
    "landscape": "resnet_cert.search.landscape",
    "load_problem": "resnet_cert.spec",
    "profile": "resnet_cert.compare.profile",
    "sgd": "resnet_cert.search.sgd",
    "solve": "resnet_cert.search.solve",
    "verify": "resnet_cert.certificate.supervision",
}

_ALIASES = {"VectorProblem": "Problem"}
"""Names that were two and are one."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), _ALIASES.get(name, name))


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """`check` and `bound` are functions in modules of the same names.  The import system binds a submodule in
    its package when it is first loaded; that must not hide the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
