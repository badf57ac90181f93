"""Flags of the HTTP servers: where they listen, who may call, what they offer."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts.validators import Number

from backplane_launcher.settings.flag import POSITIVE, POSITIVE_NUMBER, SERVER, flag, words


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The servers' side."""

    hostname: Annotated[str, flag(SERVER, "--hostname", help="Address or name to listen on.")] = (
        "0.0.0.0"  # noqa: S104 - TGI's default; containers need it
    )
    port: Annotated[
        int,
        flag(
            SERVER,
            "--port",
            "-p",
            help="Port to listen on; 0 takes a free one.",
            validator=Number(gte=0, lte=65535),
        ),
    ] = 3000
    num_servers: Annotated[
        int,
        flag(
            SERVER,
            "--num-servers",
            help="HTTP server processes, on one socket.",
            validator=POSITIVE,
        ),
    ] = 1
    api_key: Annotated[
        tuple[str, ...],
        flag(
            SERVER,
            "--api-key",
            help="Key that clients must send; repeatable. The variable or --api-key-file keeps it "
            "out of `ps`.",
        ),
    ] = ()
    api_key_file: Annotated[
        str | None,
        flag(
            SERVER,
            "--api-key-file",
            help="File with further keys, one to a line; lines that begin with # do not count.",
        ),
    ] = None
    open_routes: Annotated[
        tuple[str, ...],
        flag(
            SERVER,
            "--open-routes",
            help="Routes that need no key (metrics,info,/v1/models), with commas between; "
            "repeatable.",
            converter=words,
        ),
    ] = ()
    cors_allow_origin: Annotated[
        tuple[str, ...],
        flag(
            SERVER,
            "--cors-allow-origin",
            help="Origins that browsers may call from, with commas between; repeatable.",
            converter=words,
        ),
    ] = ()
    allowed_host: Annotated[
        tuple[str, ...],
        flag(
            SERVER,
            "--allowed-host",
            help="Name that requests may reach this server by, beside its own, localhost and IP "
            "addresses; repeatable. Counts where no key is set; on loopback names must be known "
            "even without this.",
        ),
    ] = ()
    tls_cert_file: Annotated[
        str | None,
        flag(
            SERVER,
            "--tls-cert-file",
            "--ssl-certfile",
            help="Certificate (PEM, with its chain) to serve HTTPS by; wants --tls-key-file.",
        ),
    ] = None
    tls_key_file: Annotated[
        str | None,
        flag(
            SERVER,
            "--tls-key-file",
            "--ssl-keyfile",
            help="The certificate's private key (PEM, not encrypted).",
        ),
    ] = None
    payload_limit: Annotated[
        int,
        flag(SERVER, "--payload-limit", help="Largest request body, bytes.", validator=POSITIVE),
    ] = 2_000_000
    validation_workers: Annotated[
        int,
        flag(
            SERVER, "--validation-workers", help="Tokenizer threads a server.", validator=POSITIVE
        ),
    ] = 2
    request_timeout: Annotated[
        float | None,
        flag(
            SERVER,
            "--request-timeout",
            help="Seconds after which a request is ended, finished or not.",
            validator=POSITIVE_NUMBER,
        ),
    ] = None
    write_timeout: Annotated[
        float,
        flag(
            SERVER,
            "--write-timeout",
            help="Seconds after which a client that reads nothing is cut.",
            validator=POSITIVE_NUMBER,
        ),
    ] = 30.0
    disable_grammar_support: Annotated[
        bool,
        flag(
            SERVER,
            "--disable-grammar-support",
            help="Refuse requests for grammars, JSON formats and forced tools.",
        ),
    ] = False
    watermark_gamma: Annotated[
        float,
        flag(
            SERVER,
            "--watermark-gamma",
            help="Share of the vocabulary that a watermark favours.",
            validator=Number(gt=0, lt=1),
        ),
    ] = 0.5
    watermark_delta: Annotated[
        float,
        flag(
            SERVER,
            "--watermark-delta",
            help="How much a watermark favours it, added to the logits.",
            validator=POSITIVE_NUMBER,
        ),
    ] = 2.0
    tgi_strict: Annotated[
        bool,
        flag(
            SERVER,
            "--tgi-strict",
            help="Do what TGI does also where it is odd; docs/tgi-compatibility.md lists it.",
        ),
    ] = False
    compute_type: Annotated[
        str | None,
        flag(
            SERVER,
            "--compute-type",
            help="What the header x-compute-type says; automatic: devices, as in 1-nvidia-a10g.",
        ),
    ] = None
    docker_label: Annotated[
        str | None,
        flag(
            SERVER,
            "--docker-label",
            help="What /info and system_fingerprint say of the image.",
        ),
    ] = None
