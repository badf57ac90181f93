"""What went wrong with the Hub, said in one line with the remedy."""

import errno
import socket

from backplane_core.errors import ModelError
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The library raises its HTTP client's own errors, and which client that is has changed between
# versions; the base class of its HTTP error is that client's root.
_CLIENT_ERROR = HfHubHTTPError.__bases__[0]

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TRY_AGAIN_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def is_transient(error: BaseException) -> bool:
    """Whether trying again can help: a cut connection, a short file, a busy Hub."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRY_AGAIN_STATUS
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, LocalEntryNotFoundError):
        return error.__cause__ is not None and is_transient(error.__cause__)
    if isinstance(error, _CLIENT_ERROR | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def is_unresolved(error: BaseException) -> bool:
    """Whether a host's name was not found: trying again soon seldom helps."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def explain(
    error: BaseException, repository: str, *, revision: str | None, token: bool
) -> ModelError:
    """The error to show; `token` says whether one was sent."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return explain(error.__cause__, repository, revision=revision, token=token)
    if (known := _of_repository(error, repository, revision, token=token)) is not None:
        return known
    if isinstance(error, HfHubHTTPError):
        return _by_status(error, repository, token=token)
    return _of_machine(error, repository)


def not_in_cache(repository: str, revision: str | None) -> ModelError:
    """Offline, and the model is not here."""
    at = f" at revision {revision}" if revision else ""
    return ModelError(
        f"{repository}{at} is not in the cache, and HF_HUB_OFFLINE forbids to download it",
        remedy="unset HF_HUB_OFFLINE once, or name the right cache with --huggingface-hub-cache",
    )


def _of_repository(
    error: BaseException, repository: str, revision: str | None, *, token: bool
) -> ModelError | None:
    """What the Hub, or the cache in its stead, said about the repository."""
    match error:
        case GatedRepoError():
            step = (
                "wait for approval or use a token of that account"
                if token
                else "set HF_TOKEN to a token of that account"
            )
            return ModelError(
                f"{repository} is gated and the Hub refused access",
                remedy=f"accept its terms at https://huggingface.co/{repository}, then {step}",
            )
        case RepositoryNotFoundError():
            private = "" if token else "; a private model needs HF_TOKEN set to a token with access"
            return ModelError(
                f"the Hub knows no model {repository}{_not_here(repository)}",
                remedy=f"check the spelling{private}",
            )
        case RevisionNotFoundError():
            return ModelError(
                f"{repository} has no revision {revision}",
                remedy="name a branch, tag or commit it has",
            )
        case OfflineModeIsEnabled() | LocalEntryNotFoundError():
            return not_in_cache(repository, revision)
        case EntryNotFoundError():
            return ModelError(
                f"a file of {repository} is gone from the Hub: {_line(error)}",
                remedy="start again, so that its files are listed anew",
            )
        case _:
            return None


def _of_machine(error: BaseException, repository: str) -> ModelError:
    """What the disk or the network said."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return ModelError(
            f"the disk is full: {repository} cannot be written to {error.filename or 'the cache'}",
            remedy="free some space, or name a larger disk with --huggingface-hub-cache",
        )
    if isinstance(error, PermissionError):
        return ModelError(
            f"{error.filename} cannot be written",
            remedy="give this user the right to, or name a folder with --huggingface-hub-cache",
        )
    if is_unresolved(error):
        return ModelError(
            f"{repository} cannot be had: the Hub's name does not resolve "
            f"({_line(error)}){_not_here(repository)}",
            remedy="check the network (and HTTPS_PROXY), or the path if it is a local model",
        )
    return ModelError(
        f"the download of {repository} broke off: {_line(error)}",
        remedy="check the network (and HTTPS_PROXY), then start again",
    )


def _by_status(error: HfHubHTTPError, repository: str, *, token: bool) -> ModelError:
    status = error.response.status_code
    if status in (401, 403):
        return ModelError(
            f"the Hub refused access to {repository} (status {status})",
            remedy="HF_TOKEN has no right to it or is not valid; make a new one"
            if token
            else "set HF_TOKEN to a token with access",
        )
    if status in _TRY_AGAIN_STATUS:
        return ModelError(
            f"the Hub is not answering for {repository} (status {status})",
            remedy="try again later, or serve from the cache with HF_HUB_OFFLINE=1",
        )
    return ModelError(f"the Hub answered {status} for {repository}: {_line(error)}")


def _not_here(repository: str) -> str:
    # Few ids have no owner, so one without is likelier a path that was mistyped.
    return "" if "/" in repository else f", and there is no file or folder {repository} here"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
