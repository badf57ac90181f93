"""RMS norms by `native/norms.c`, in one pass: modules compute them in seven of torch's operations.

No family is named here: what a module computes says whether it is an RMS norm, and of which kind.
"""

import ctypes
import inspect
import itertools
import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from backplane_torch.engine.devices.native import library

_Forward = Callable[[torch.Tensor], torch.Tensor]

# The types of which rows may be, and how C is told.
_IS_BFLOAT16: Final = {torch.bfloat16: 1, torch.float32: 0}
# Of the numbers in a probe: 16,384 squares of these are summed up exactly in float32, in any order.
_LARGEST_STEP: Final = 31
# Among them some beside which epsilon is all, and some whose squares are infinite.
_EXPONENTS: Final = (0, -9, -45, 45, 100)
_NUM_PROBES: Final = 30


def replace_norms(model: nn.Module) -> None:
    """Let the compiled rows compute every RMS norm of a model; nothing, where none are compiled.

    A norm stays where it is, with its weight and all else that others read of it: only its
    `forward` is another one. Its weight must not change from then on.
    """
    kernels = library.load()
    if kernels is None:
        return
    for module in model.modules():
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if isinstance(epsilon, float) and _may_be_one(module):
            proven = {
                dtype: rows
                for dtype in _IS_BFLOAT16
                if (rows := _proven(kernels, module, epsilon, dtype)) is not None
            }
            if proven:
                module.forward = NormForward(module.forward, proven)


class NormRows:
    """One kind of RMS norm. A row's numbers depend on nothing but the row."""

    def __init__(
        self, kernels: ctypes.CDLL, scale: torch.Tensor, epsilon: float, *, rounds_twice: bool
    ) -> None:
        """Keep what each row is computed with.

        Args:
            kernels: the compiled library.
            scale: [width] in float32, contiguous.
            epsilon: what is added to the mean of the squares.
            rounds_twice: to the rows' type also before the scale, not only after it.
        """
        self._normalize = kernels.bp_normalize_rows
        size, address, flag = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
        self._normalize.argtypes = (size, size, flag, flag, ctypes.c_float, *[address] * 3)
        self._normalize.restype = None
        self._scale = scale
        self._epsilon = epsilon
        self._rounds_twice = rounds_twice

    def fits(self, source: torch.Tensor) -> bool:
        """Whether the last dimension is a row, and its numbers lie side by side."""
        return source.shape[-1] == len(self._scale) and source.stride(-1) == 1

    def __call__(self, source: torch.Tensor) -> torch.Tensor:
        """[…, width] → the same shape, type and order in memory; contiguous, if there are gaps."""
        target = torch.empty_like(source)
        # Without gaps rows lie one behind the other, in whatever order of the dimensions.
        if source.stride() != target.stride():
            source = source.contiguous()
            target = torch.empty_like(source)
        self._normalize(
            *(source.shape[:-1].numel(), len(self._scale)),
            *(_IS_BFLOAT16[source.dtype], self._rounds_twice, self._epsilon),
            *(source.data_ptr(), self._scale.data_ptr(), target.data_ptr()),
        )
        return target


class NormForward:
    """What a norm's `forward` becomes."""

    def __init__(self, own: _Forward, proven: dict[torch.dtype, NormRows]) -> None:
        """Keep both.

        Args:
            own: what it was, and is for what no compiled rows are there.
            proven: by the type of the rows.
        """
        self._own = own
        self._proven = proven

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[…, width] → the same shape."""
        rows = self._proven.get(hidden_states.dtype)
        if rows is None or not rows.fits(hidden_states):
            return self._own(hidden_states)
        return rows(hidden_states)


def _may_be_one(module: nn.Module) -> bool:
    """By its looks: nothing but a weight of one dimension, and called with one tensor."""
    parameters = list(module.named_parameters())
    return (
        type(module).__name__.endswith("Norm")
        and [(name, weight.dim()) for name, weight in parameters] == [("weight", 1)]
        and not [*module.children(), *module.buffers()]
        and len(inspect.signature(module.forward).parameters) == 1
    )


@torch.no_grad()
def _proven(
    kernels: ctypes.CDLL, module: nn.Module, epsilon: float, dtype: torch.dtype
) -> NormRows | None:
    """The kind that computes the probes to the last bit as the module does, if there is one.

    Other rows may differ from it by what float32 rounds away when squares are summed up in another
    order: now and then by one unit of the type's last place, where there is a rounding.
    """
    weight = module.get_parameter("weight").float().contiguous()
    probes = _probes(len(weight), dtype)
    try:
        with warnings.catch_warnings(action="ignore"):  # of types that are mixed here alone
            expected = [module.forward(probe) for probe in probes]
    except Exception:  # noqa: BLE001 -- it takes something else: whose code it is says how
        return None
    for scale, rounds_twice in itertools.product((weight, 1 + weight), (False, True)):
        rows = NormRows(kernels, scale, epsilon, rounds_twice=rounds_twice)
        if all(_same(rows(probe), own) for probe, own in zip(probes, expected, strict=True)):
            return rows
    return None


def _probes(width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Rows of many magnitudes and of none; and one alone."""
    draws = torch.Generator().manual_seed(0)
    steps = torch.randint(-_LARGEST_STEP, _LARGEST_STEP + 1, (_NUM_PROBES, width), generator=draws)
    exponents = torch.tensor(_EXPONENTS).repeat(_NUM_PROBES // len(_EXPONENTS))
    rows = torch.ldexp(steps.float(), exponents.unsqueeze(1)).to(dtype)
    rows[-1] = 0
    return [rows.unsqueeze(0), rows[:1]]


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype is right.dtype and torch.equal(left, right)
