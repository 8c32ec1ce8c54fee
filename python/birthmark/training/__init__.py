"""The training engine: ONNX forward graphs in, one plain ONNX training step out; and the thief.

Nothing else in birthmark imports this package. Its parts, in the data's order: :mod:`.graph` writes
networks, :mod:`.gradient` differentiates them, :mod:`.optimiser` makes and runs the training step,
:mod:`.students` holds the thief's networks, :mod:`.data` his pictures, :mod:`.surrogates` his way.
The names below are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthmark.training.gradient import gradients
    from birthmark.training.graph import Graph
    from birthmark.training.optimiser import Trainer, one_cycle, training_step
    from birthmark.training.students import Network
    from birthmark.training.surrogates import Surrogate, steal, steal_folder

_HOME = {
    "Graph": "graph",
    "gradients": "gradient",
    "training_step": "optimiser",
    "Trainer": "optimiser",
    "one_cycle": "optimiser",
    "Network": "students",
    "Surrogate": "surrogates",
    "steal": "surrogates",
    "steal_folder": "surrogates",
}

__all__ = [
    "Graph",
    "gradients",
    "training_step",
    "Trainer",
    "one_cycle",
    "Network",
    "Surrogate",
    "steal",
    "steal_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'birthmark.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
