"""The second opinion: decides again from a certificate, by code that shares nothing with its producer.

Balls at a precision that rises as far as it must, rational numbers where a decision is an equality; no
module of `check` is used, but for reading the spec that the certificate names (`binding`).
"""

from resnet_cert.verify.decision import Verification, verify

__all__ = ["Verification", "verify"]
