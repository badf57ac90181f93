"""TLS of the listening socket: the operator's certificate, and a word to clients without TLS."""

import ssl
from pathlib import Path
from typing import Any, Final, NoReturn

from backplane_core.errors import SetupError

_PLAIN_HTTP: Final = "HTTP_REQUEST"  # OpenSSL's name for it
_SENTENCE: Final = b"this port speaks TLS; ask for https://\n"
_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_SENTENCE), _SENTENCE)
)


class _ServerObject(ssl.SSLObject):
    """A connection's TLS. One that begins as plain HTTP is told so before it is closed."""

    outgoing: ssl.MemoryBIO
    _told = False

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason != _PLAIN_HTTP or self._told:
                raise
            self._told = True
            self.outgoing.write(_ANSWER)
            # As if more were to come: the loop sends what there is, and waits for the client.
            raise ssl.SSLWantReadError from error


class _ServerContext(ssl.SSLContext):
    sslobject_class = _ServerObject

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any
    ) -> ssl.SSLObject:
        """TLS between two buffers, as event loops use it."""
        wrapped = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        if isinstance(wrapped, _ServerObject):
            wrapped.outgoing = outgoing
        return wrapped


def server_context(cert_file: str | None, key_file: str | None) -> ssl.SSLContext | None:
    """What to serve with; None is plain HTTP.

    Args:
        cert_file: PEM: the certificate, then what its issuers signed, if anything.
        key_file: PEM, not encrypted; None where `cert_file` has it too.

    Raises:
        SetupError: a file is missing, or the two do not fit.
    """
    if cert_file is None:
        if key_file is None:
            return None
        raise SetupError(
            "--tls-key-file is set and --tls-cert-file is not", remedy="name both, or neither"
        )
    for path in filter(None, (cert_file, key_file)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise SetupError(
                f"the TLS file {path} cannot be read: {error.strerror}",
                remedy="--tls-cert-file and --tls-key-file name PEM files of this user",
            ) from error
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert_file, key_file, password=_refuse_password)
    except (ssl.SSLError, ValueError) as error:
        raise SetupError(
            f"the certificate {cert_file} and its key cannot be used",
            remedy="both must be PEM, the key without a password and the certificate's own",
        ) from error
    return context


def _refuse_password() -> NoReturn:
    """In place of a question on the terminal, which nobody would see."""
    raise ValueError("the key has a password")
