"""`GuidanceEngine`: one per runner. Compiles grammars and makes masks beside the engine's thread.

llguidance lets go of the interpreter's lock while it works, so threads are enough.
"""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from backplane_core.errors import BackplaneError, GenerationError
from backplane_core.guidance.compiled_grammars import CompiledGrammars
from backplane_core.guidance.follower import EndRule, Follower
from backplane_core.guidance.guide import SequenceGuide
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.messages import Grammar
from backplane_core.sampling import StoppingParams
from backplane_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher

_log = logging.getLogger(__name__)

_NUM_COMPILERS: Final = 2
_MAX_MASKERS: Final = 8
# Compiling can wait; the model's own threads cannot, where they use every core.
_COMPILER_NICENESS: Final = 19


class GuidanceEngine:
    """Makes guides for a vocabulary. `guide` returns at once; nothing here blocks."""

    def __init__(self, vocabulary: Vocabulary, limits: GuidanceLimits | None = None) -> None:
        from backplane_core.guidance.compiling import (  # noqa: PLC0415 - batching must import without llguidance
            compile_grammar,
        )
        from backplane_core.guidance.tokenizing import make_tokenizer  # noqa: PLC0415 - likewise

        self.limits: Final = limits or GuidanceLimits()
        self._compile = compile_grammar
        self._eos_token_ids = vocabulary.eos_token_ids
        self._tokenizer = make_tokenizer(vocabulary)
        self._compiled = CompiledGrammars(self.limits)
        self._compilers = ThreadPoolExecutor(
            _NUM_COMPILERS, thread_name_prefix="compile", initializer=_lower_priority
        )
        self._maskers = ThreadPoolExecutor(
            min(_MAX_MASKERS, os.cpu_count() or 1), thread_name_prefix="mask"
        )

    @property
    def num_cached_grammars(self) -> int:
        """Compiled grammars that are kept."""
        return len(self._compiled)

    def guide(
        self, grammar: Grammar, stopping: StoppingParams, ready: Callable[[], None]
    ) -> SequenceGuide:
        """A guide for one sequence; `ready` is called, on any thread, once it can be asked."""
        guide = SequenceGuide(self._maskers, self.limits)
        compiled, to_make = self._compiled.get_or_reserve(grammar)
        if to_make:
            self._compilers.submit(self._fill, grammar, compiled)
        guide.begin(self._followers(grammar, stopping, compiled), ready)
        return guide

    def _followers(
        self, grammar: Grammar, stopping: StoppingParams, compiled: "Future[LLMatcher]"
    ) -> "Future[Follower]":
        """A follower of one's own, once the grammar is compiled."""
        follower: Future[Follower] = Future()

        def renewed() -> "LLMatcher":
            self._compiled.forget(grammar)
            return self._compile(grammar, self._tokenizer, self.limits)

        def make(done: "Future[LLMatcher]") -> None:
            if error := done.exception():
                follower.set_exception(error)
                return
            end_rule = EndRule(stopping, self._eos_token_ids)
            copy = done.result().deep_copy()
            follower.set_result(Follower(copy, renewed, end_rule, replay_s=self.limits.mask_s))

        compiled.add_done_callback(make)
        return follower

    def close(self) -> None:
        """Take no more work. What is under way is bounded by the limits and ends by itself."""
        self._compilers.shutdown(wait=False, cancel_futures=True)
        self._maskers.shutdown(wait=False, cancel_futures=True)

    def _fill(self, grammar: Grammar, compiled: "Future[LLMatcher]") -> None:
        try:
            matcher = self._compile(grammar, self._tokenizer, self.limits)
        except BackplaneError as error:
            self._compiled.forget(grammar)
            compiled.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - native code panics past Exception
            _log.exception("a grammar could not be compiled")
            self._compiled.forget(grammar)
            failed = GenerationError("the grammar could not be compiled")
            failed.__cause__ = error
            compiled.set_exception(failed)
        else:
            compiled.set_result(matcher)


def _lower_priority() -> None:
    if sys.platform != "linux":
        return  # a thread has no priority of its own
    # Some kernels and sandboxes refuse; an initializer that fails would break the pool.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _COMPILER_NICENESS)
