"""Getting a model from the Hub: list its files, then download those that a backend selected.

Blocking; the launcher runs it on a thread. Imported only when a model is on the Hub.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import huggingface_hub
from backplane_core.backend import ModelSource, ProgressSink
from backplane_core.errors import ModelError
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from backplane_launcher.download_progress import DownloadProgress
from backplane_launcher.hub_errors import explain, is_transient, is_unresolved, not_in_cache
from backplane_launcher.local_path import local_path
from backplane_launcher.model_source import HubId, read_config

_log = logging.getLogger(__name__)

_TOKEN_VARIABLES: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
_NUM_TRIES: Final = 5
_NUM_TRIES_OF_A_NAME: Final = 2
_ResultT = TypeVar("_ResultT")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository's files at one commit: sizes in bytes where known. `path` once all is local."""

    commit: str
    sizes: Mapping[str, int | None]
    path: Path | None = None


class HubModel:
    """One repository at one revision, in one cache.

    `wait` is how the pauses between tries are spent; tests pass one that does not sleep.
    """

    def __init__(
        self,
        hub_id: HubId,
        environ: Mapping[str, str],
        *,
        cache: str | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._id = hub_id
        self._cache = local_path(cache or constants.HF_HUB_CACHE)
        self._token = next((environ[name] for name in _TOKEN_VARIABLES if environ.get(name)), None)
        self._wait = wait
        self._listing: Listing | None = None

    def list_files(self) -> ModelSource:
        """What the repository holds, and its configuration; downloads nothing large.

        Offline, or where the Hub cannot be reached, it is what the cache holds.

        Raises:
            ModelError: not found, gated, no network and not in the cache, broken configuration.
        """
        if constants.HF_HUB_OFFLINE:
            self._listing = self._cached_listing()
            if self._listing is None:
                raise not_in_cache(self._id.repository, self._id.revision)
        else:
            self._listing = self._remote_listing()
        config: dict[str, object] = {}
        if "config.json" in self._listing.sizes:
            config = read_config(self._fetch("config.json"))
        return ModelSource(
            model_id=self._id.model_id,
            files=tuple(sorted(self._listing.sizes)),
            revision=self._id.revision,
            variant=self._id.variant,
            gguf_file=self._id.gguf_file,
            config=config,
        )

    def download(
        self, source: ModelSource, files: Sequence[str], progress: ProgressSink
    ) -> ModelSource:
        """Bring `files` here; those already in the cache are not fetched again.

        Raises:
            ModelError: no room on the disk, the network failed for good, access refused.
        """
        listing = self._listing
        if listing is None:
            raise ModelError("a model's files are downloaded after they are listed")
        missing = [name for name in files if not self._snapshot_file(listing, name).exists()]
        needed = sum(listing.sizes.get(name) or 0 for name in missing)
        self._check_room(needed)
        meter = DownloadProgress(progress, needed, len(missing))
        for name in missing:
            meter.start_file(name)
            self._fetch(name, meter)
        if missing:
            meter.finish()
        self._remember_revision(listing)
        snapshot = self._snapshot_file(listing, "")
        return ModelSource(
            model_id=source.model_id,
            files=tuple(files),
            path=str(snapshot),
            revision=listing.commit,
            variant=source.variant,
            gguf_file=source.gguf_file,
            config=source.config,
        )

    # ── the Hub ──────────────────────────────────────────────────────────────────────────

    def _remote_listing(self) -> Listing:
        api = huggingface_hub.HfApi()
        repository, revision = self._id.repository, self._id.revision
        try:
            info = self._try_again(
                lambda: api.model_info(
                    repository, revision=revision, files_metadata=True, token=self._token
                )
            )
        except Exception as error:
            cached = self._cached_listing() if is_transient(error) else None
            if cached is None:
                raise self._explain(error) from error
            _log.warning("the Hub cannot be reached; serving %s from the cache", repository)
            return cached
        sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
        if not sizes or info.sha is None:
            raise ModelError(f"{repository} holds no files", remedy="name another model")
        return Listing(commit=info.sha, sizes=sizes)

    def _fetch(self, name: str, meter: DownloadProgress | None = None) -> Path:
        listing = self._listing
        if listing is None or listing.path is not None:
            return self._here(listing, name)
        commit = listing.commit
        bar = meter.bar_class() if meter else DownloadProgress.silent_bar_class()

        def download() -> str:
            if meter:
                meter.restart_file()
            return huggingface_hub.hf_hub_download(  # pyright: ignore[reportUnknownMemberType] - its tqdm argument is not typed
                self._id.repository,
                name,
                revision=commit,
                cache_dir=self._cache,
                token=self._token,
                tqdm_class=bar,
            )

        try:
            return Path(self._try_again(download))
        except Exception as error:
            raise self._explain(error) from error

    def _try_again(self, action: Callable[[], _ResultT]) -> _ResultT:
        for attempt in range(1, _NUM_TRIES + 1):
            try:
                return action()
            except Exception as error:
                most = _NUM_TRIES_OF_A_NAME if is_unresolved(error) else _NUM_TRIES
                if attempt >= most or not is_transient(error):
                    raise
                pause_s = float(2 ** (attempt - 1))
                _log.warning(
                    "the Hub failed (%s); trying again in %g s (%d of %d)",
                    " ".join(str(error).split())[:200] or type(error).__name__,
                    pause_s,
                    attempt,
                    most,
                )
                self._wait(pause_s)
        raise AssertionError("unreachable: the last try returns or raises")

    def _explain(self, error: Exception) -> ModelError:
        return explain(
            error,
            self._id.repository,
            revision=self._id.revision,
            token=self._token is not None or huggingface_hub.get_token() is not None,
        )

    # ── the cache, in the layout that the Hub's libraries share ──────────────────────────

    @property
    def _folder(self) -> Path:
        return self._cache / repo_folder_name(repo_id=self._id.repository, repo_type="model")

    def _snapshot_file(self, listing: Listing, name: str) -> Path:
        return self._folder / "snapshots" / listing.commit / name

    def _here(self, listing: Listing | None, name: str) -> Path:
        if listing is None or not (path := self._snapshot_file(listing, name)).exists():
            raise not_in_cache(f"{self._id.repository}/{name}", self._id.revision)
        return path

    def _cached_listing(self) -> Listing | None:
        revision = self._id.revision or constants.DEFAULT_REVISION
        reference = self._folder / "refs" / revision
        commit = reference.read_text().strip() if reference.is_file() else revision
        snapshot = self._folder / "snapshots" / commit
        if not snapshot.is_dir():
            return None
        names = [path for path in sorted(snapshot.rglob("*")) if path.is_file()]
        sizes = {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in names}
        return Listing(commit=commit, sizes=sizes, path=snapshot)

    def _remember_revision(self, listing: Listing) -> None:
        # Files are fetched by commit, so that a push in between mixes nothing; the library then
        # keeps no note of which commit the branch was, which offline use needs.
        revision = self._id.revision or constants.DEFAULT_REVISION
        if listing.path is not None or revision == listing.commit:
            return
        reference = self._folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(listing.commit)

    def _check_room(self, needed: int) -> None:
        existing = next(path for path in (self._cache, *self._cache.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if needed > free:
            raise ModelError(
                f"{self._id.repository} needs {needed / 1e9:.1f} GB and {existing} has "
                f"{free / 1e9:.1f} GB free",
                remedy="free some space, or name a larger disk with --huggingface-hub-cache",
            )
