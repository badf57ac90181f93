"""The files that keys and certificates come from, read or tried before anything starts."""

import ssl
from collections.abc import Iterable
from typing import NoReturn

from backplane_core.errors import SetupError

from backplane_launcher.local_path import local_path


def read_keys(path: str) -> tuple[str, ...]:
    """The keys in a file: one to a line, without lines that are empty or begin with `#`.

    Raises:
        SetupError: it cannot be read, or holds no key: a server that should be closed is not
            opened by an empty file.
    """
    try:
        text = local_path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path at all
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SetupError(
            f"--api-key-file {path} cannot be read: {why}",
            remedy="check the path and its permissions",
        ) from error
    lines = (line.strip() for line in text.splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise SetupError(
            f"--api-key-file {path} holds no key", remedy="write one to a line, or leave it out"
        )
    return keys


def what_keys_guard(open_routes: Iterable[str]) -> str | None:
    """What to say to those whose probes and scrapes know of no key; None where they need none."""
    opened = {name.strip().lstrip("/") for name in open_routes}
    guarded = [name for name in ("health", "metrics") if name not in opened]
    if not guarded:
        return None
    remedies = {
        "health": "probes use /health/live and /health/ready",
        "metrics": "Prometheus sends the key",
    }
    return (
        f"a key guards {' and '.join(f'/{name}' for name in guarded)} too: "
        f"{', '.join(remedies[name] for name in guarded)}, "
        f"or start with --open-routes {','.join(guarded)}"
    )


def check_certificate(cert_file: str, key_file: str) -> None:
    """Refuse a certificate and a key that no server could use.

    Raises:
        SetupError: one cannot be read, is encrypted or is not PEM, or they do not belong together.
    """
    for flag, path in (("--tls-cert-file", cert_file), ("--tls-key-file", key_file)):
        try:
            local_path(path).read_bytes()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise SetupError(
                f"{flag} {path} cannot be read: {why}", remedy="check the path and its permissions"
            ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(
            local_path(cert_file), local_path(key_file), password=_refuse_password
        )
    except (ssl.SSLError, ValueError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
        raise SetupError(
            f"--tls-cert-file {cert_file} and --tls-key-file {key_file} cannot be used together: "
            f"{(reason or 'they are not PEM files').replace('_', ' ').lower()}",
            remedy="give a PEM certificate and the unencrypted PEM key that belongs to it",
        ) from error


def _refuse_password() -> NoReturn:
    """In place of the library's question at the terminal, where at night nobody sits."""
    raise ValueError("the key has a password")
