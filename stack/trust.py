"""Whom downloads trust: the machine's certificate store, or the bundle that a variable names.

Behind a proxy that inspects TLS every certificate is signed by an authority of its own, which is in the
machine's store and in no bundle that a tool brings along. It needs the standard library alone, for the
setup asks here before anything is installed.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
"""The variables by which people name a bundle, the one that counts first; each tool reads others."""

MEND = (
    "a proxy that inspects TLS signs with an authority of its own: add that to the machine's "
    "certificate store (Debian: /usr/local/share/ca-certificates and update-ca-certificates), or "
    "export SSL_CERT_FILE=/path/to/bundle.pem"
)

_FAILED = "CERTIFICATE_VERIFY_FAILED"
_KNOWN_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def trusting_context() -> ssl.SSLContext:
    """Return a client's TLS context that trusts what the machine, or its user, trusts.

    Raises:
        SetupError: what a variable names is no bundle, or no folder, of certificates.
    """
    bundle, folder = named_bundle(os.environ), os.environ.get("SSL_CERT_DIR")
    if bundle is not None or folder:
        try:
            return ssl.create_default_context(cafile=bundle, capath=folder or None)
        except OSError as error:
            from millrace.errors import SetupError

            raise SetupError(
                f"the certificates to trust cannot be read: {error.strerror or error}",
                where=bundle or folder or "",
                fix=f"name a PEM file by SSL_CERT_FILE, or unset {', '.join(VARIABLES)}",
            ) from error
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def named_bundle(environ: Mapping[str, str]) -> "str | None":
    """Return the bundle of certificates that a variable names, if one does."""
    return next((environ[name] for name in VARIABLES if environ.get(name)), None)


def environment_of_tools(environ: Mapping[str, str]) -> "dict[str, str]":
    """Return the variables with which uv, pip and Python trust what the machine trusts.

    What somebody has set stays as it is.
    """
    found = {"UV_SYSTEM_CERTS": "true"}
    bundle = named_bundle(environ)
    if bundle is not None:
        found.update(dict.fromkeys(VARIABLES[:3], bundle))
    return {name: environ.get(name) or value for name, value in found.items()}


def machines_bundle() -> "str | None":
    """Return the file in which the machine's store is, for tools that know no store; None if none."""
    own = ssl.get_default_verify_paths().cafile
    return next((path for path in (own, *_KNOWN_BUNDLES) if path and Path(path).is_file()), None)


def is_untrusted(error: object) -> bool:
    """Whether a download failed for a certificate whose authority is not trusted.

    Args:
        error: the exception, or what a tool has printed.
    """
    reason = getattr(error, "reason", error)
    return isinstance(reason, ssl.SSLCertVerificationError) or _FAILED in str(reason)
