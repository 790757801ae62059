"""Plain data that training tools pickle beside the weights, read without running a file's code.

PyTorch's restricted unpickler accepts tensors, numbers, text and containers. The names below are
data too. Each name gets a stand-in of this module, which only keeps its arguments. So a file
cannot run the code of NumPy or of another library.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

_NUMPY_KINDS = "?bhilqBHILQefdSU"
"""Type characters whose values have no references inside."""


class IgnoredData:
    """Data that does not concern a network, such as a path."""

    def __new__(cls, *args: object, **options: object) -> IgnoredData:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _NumpyType:
    """A NumPy data type, by its text such as `<f8`."""

    def __init__(self, text: object, *args: object) -> None:
        self._text = text
        self._order = ""

    def __setstate__(self, state: object) -> None:
        # (version, byte order, …): the text itself has none.
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self._order = str(state[1])

    def values(self, data: object) -> list[object]:
        """The values in bytes of this type; none for types of objects or fields."""
        text = self._text
        if not isinstance(text, str) or not isinstance(data, bytes):
            return []
        try:
            dtype = np.dtype(self._order + text)
            plain = dtype.char in _NUMPY_KINDS and dtype.itemsize
            return list(np.frombuffer(data, dtype).tolist()) if plain else []
        except (TypeError, ValueError):
            return []


class NumpyArray:
    """An array's values as a flat list."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def __setstate__(self, state: object) -> None:
        # (version, shape, type, in Fortran's order, bytes or, for objects, a list)
        if not isinstance(state, tuple) or len(state) != 5:
            return
        _, shape, kind, _, data = state
        one_dimensional = isinstance(shape, tuple) and len(shape) == 1
        if one_dimensional and isinstance(kind, _NumpyType):
            self.values = data if isinstance(data, list) else kind.values(data)


def _numpy_scalar(kind: object, data: object = b"") -> object:
    found = kind.values(data) if isinstance(kind, _NumpyType) else []
    return found[0] if len(found) == 1 else None


def _empty_array(*args: object) -> NumpyArray:
    return NumpyArray()


def _empty_dict(*args: object) -> dict[object, object]:
    return {}


_STAND_INS: dict[Callable[..., object], tuple[str, ...]] = {
    _NumpyType: ("numpy.dtype",),
    NumpyArray: ("numpy.ndarray",),
    _numpy_scalar: ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"),
    # NumPy gives it the class, an empty shape and a type; the state with the values follows.
    _empty_array: (
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray._reconstruct",
    ),
    _empty_dict: ("collections.defaultdict",),
    # The unpickler fills no class of ours.
    OrderedDict: (
        *("lightning.fabric.utilities.data.AttributeDict",),
        *("lightning_fabric.utilities.data.AttributeDict",),
        *("pytorch_lightning.utilities.parsing.AttributeDict",),
        *("lightning.pytorch.utilities.parsing.AttributeDict",),
        *("easydict.EasyDict", "addict.addict.Dict", "box.box.Box"),
    ),
    IgnoredData: (
        *("argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "fractions.Fraction"),
        *(
            f"{module}.{system}Path"
            for module in ("pathlib", "pathlib._local")
            for system in ("Posix", "Windows", "PurePosix", "PureWindows")
        ),
        *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"),
        *("datetime.timezone", "uuid.UUID", "builtins.slice", "builtins.range"),
        *("builtins.frozenset", "builtins.int", "builtins.float", "builtins.str"),
        *("builtins.bool", "builtins.list", "builtins.dict", "builtins.tuple"),
        *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
        *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
        *("omegaconf.nodes.AnyNode", "typing.Any", "torch.torch_version.TorchVersion"),
    ),
}


def allow_plain_data() -> AbstractContextManager[None]:
    """Makes `torch.load(…, weights_only=True)` accept the names above as well."""
    by_name: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        (stand_in, name) for stand_in, names in _STAND_INS.items() for name in names
    ]
    return torch.serialization.safe_globals(by_name)
