"""Does the spec that a certificate names say the same?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from resnet_cert.verify.reading import Array, Certificate, Rejected


def bind(certificate: Certificate, data: dict[str, Array], folder: Path) -> tuple[str, ...]:
    """Rejects a certificate whose spec is another file now; returns what could not be compared."""
    if certificate.spec is None:
        return ("the certificate names no spec: it speaks of the numbers in its data file",)
    path = folder / certificate.spec.path
    if not path.is_file():
        raise Rejected(f"spec.path: expected a file at {path}, got none")
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as fault:
        raise Rejected(f"spec.path: cannot read {path}: {fault.strerror}") from fault
    if found != certificate.spec.sha256:
        raise Rejected(f"spec.sha256: expected {path} as it was, got another file")
    return ()
