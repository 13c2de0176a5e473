"""Loads certificates and keys into TLS contexts; errors name the file and say what to do about it."""

import ssl
from collections.abc import Callable
from typing import Final

_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "NO_START_LINE": "no PEM in it",
    "PEM_LIB": "no PEM of the expected kind in it",
    "NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in it",
    "EE_KEY_TOO_SMALL": "the key of the certificate is too short",
    "CA_MD_TOO_WEAK": "the certificate is signed with a hash that is too weak",
}
"""What an operator reads instead of OpenSSL's names."""


class BadCertificate(OSError):
    """Raised for a TLS certificate or key that cannot be used; the text names the file and says why."""


class _Encrypted(Exception):
    """Raised when OpenSSL asks for the passphrase of a key."""


def load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Loads a certificate chain and its key, two files of PEM or one, into `context`. Raises `BadCertificate`."""
    for path in dict.fromkeys((certificate, key)):
        check_readable(path)

    def ask() -> str:
        raise _Encrypted

    try:
        context.load_cert_chain(certificate, key, password=ask)
    except _Encrypted:
        raise BadCertificate(
            f"the key in {key} has a passphrase, which no process can type: remove it, "
            f"e.g. with `openssl pkey -in {key} -out PLAIN.pem`, and protect the file by its permissions"
        ) from None
    except (OSError, ValueError) as failed:  # includes the errors of ssl
        raise BadCertificate(f"{certificate} and {key} are no certificate and its key: {_why(failed)}") from None


def load_authorities(path: str) -> ssl.SSLContext:
    """Returns a client's context that trusts the authorities in this file, or the system's if `path` is empty.

    Raises `BadCertificate`.
    """
    if path:
        check_readable(path)
    try:
        return ssl.create_default_context(cafile=path or None)
    except (OSError, ValueError) as failed:
        raise BadCertificate(f"{path} has no certificates of authorities: {_why(failed)}") from None


def check_readable(path: str, error: Callable[[str], Exception] = BadCertificate) -> None:
    """Raises `error`, with the path and the reason, for a file that cannot be read."""
    try:
        with open(path, "rb"):
            pass
    except OSError as failed:  # the errors of ssl and of other libraries do not name the file
        raise error(f"cannot read {path}: {failed.strerror}") from None


def _why(failed: Exception) -> str:
    if isinstance(failed, ssl.SSLError):
        reason = failed.reason or ""
        return _REASONS.get(reason, reason) or failed.strerror or "not PEM"
    return str(failed)
