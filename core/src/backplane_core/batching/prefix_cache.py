"""`PrefixCache`: which block holds which content, and which may be evicted next.

A block's content is named by a SHA-256 over its tokens and the name of what precedes it, so two
sequences meet in a block only if everything up to its end, and the salt, are the same.
"""

import hashlib
from array import array
from collections import OrderedDict
from functools import lru_cache

from backplane_core.messages import MediaSegment, Submit


def prefix_salt(request: Submit) -> bytes:
    """What, beside its tokens, a prompt's keys and values depend on or must not be shared over.

    Adapter, media (by the server's hash) and the tenant's salt; each is length-prefixed, so no
    two combinations run together. A request whose prompt is to be scored shares with nobody but
    itself: what is found in the cache gives no logits.
    """
    scored = None if request.prompt_logprobs is None else request.request_id
    media = tuple(part.content_hash for part in request.prompt if isinstance(part, MediaSegment))
    return _salt(request.adapter, request.cache_salt, scored, media)


@lru_cache(maxsize=256)  # most requests ask for the same one, with nothing special at all
def _salt(
    adapter: str | None, cache_salt: str | None, scored: str | None, media: tuple[bytes, ...]
) -> bytes:
    digest = hashlib.sha256()
    for part in (_optional(adapter), _optional(cache_salt), _optional(scored), *media):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _optional(text: str | None) -> bytes:
    return b"" if text is None else b"=" + text.encode()


def block_hash(parent: bytes, token_ids: list[int]) -> bytes:
    """The name of a block's content; `parent` is the preceding block's name, or the salt."""
    return hashlib.sha256(parent + array("Q", token_ids).tobytes()).digest()


class PrefixCache:
    """Content → block, with the unowned blocks in the order of their last use.

    Every operation is O(1), whatever the number of cached blocks.
    """

    def __init__(self) -> None:
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self._unowned: OrderedDict[int, None] = OrderedDict()

    @property
    def num_unowned(self) -> int:
        """Blocks that no sequence owns: they can be evicted."""
        return len(self._unowned)

    @property
    def unowned(self) -> set[int]:
        """The blocks that no sequence owns. O(n): for checks."""
        return set(self._unowned)

    def find(self, content: bytes) -> int | None:
        """The block of that content, owned or not."""
        return self._block_of.get(content)

    def insert(self, content: bytes, block: int) -> None:
        """Name an owned block's content. The first block of a content keeps the name."""
        if content not in self._block_of:
            self._block_of[content] = block
            self._hash_of[block] = content

    def own(self, block: int) -> None:
        """A named block has an owner again, if it had none."""
        self._unowned.pop(block, None)

    def keep(self, block: int, *, evict_next: bool = False) -> bool:
        """Keep a block whose last owner left, as the most recently used. False if nameless.

        With `evict_next`, as the least recently used.
        """
        if block not in self._hash_of:
            return False
        self._unowned[block] = None
        if evict_next:
            self._unowned.move_to_end(block, last=False)
        return True

    def forget(self, block: int) -> None:
        """The block's content is gone or never had a name."""
        content = self._hash_of.pop(block, None)
        if content is not None:
            del self._block_of[content]
            self._unowned.pop(block, None)

    def evict(self) -> int:
        """Forget the least recently used unowned block and return it; there must be one."""
        block, _ = self._unowned.popitem(last=False)
        del self._block_of[self._hash_of.pop(block)]
        return block
