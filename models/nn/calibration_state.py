"""What calibration found, as tensors to save beside a state dict, and back into a model."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary

from torch import Tensor, nn

from aimcard.models.errors import InputError
from aimcard.models.nn.convert import crossbars
from aimcard.models.nn.crossbar import Crossbar
from aimcard.models.nn.layer import AnalogLayer

#: What calibration leaves in a crossbar.
CALIBRATED = ("affine", "input_level")


def calibration_state(model: nn.Module) -> dict[str, Tensor]:
    """What calibration found, by crossbar: it is in no state dict, whose keys stay those of the digital model.

    Keys are ``<crossbar>.affine``, (row tiles, 2, outputs), and ``<crossbar>.input_level``, a number; copies on the CPU, fit for
    ``torch.save``. Raises InputError for a model that is not converted.
    """
    found = {f"{name}.{what}": getattr(m, what) for name, (m, _) in _by_place(model).items() for what in CALIBRATED}
    return {key: value.detach().cpu().clone() for key, value in found.items() if value is not None}


def load_calibration(model: nn.Module, state: Dictionary[str, Tensor]) -> None:
    """Put back what ``calibration_state`` gave, in place; what it does not hold is cleared.

    Raises InputError, and changes nothing, if a key or shape does not fit the model.
    """
    places = _by_place(model)
    for key, value in state.items():
        name, _, what = key.rpartition(".")
        if name not in places or what not in CALIBRATED:
            raise InputError(f"state: {key!r} belongs to no crossbar of this model; convert it as the calibrated one was")
        m, weight = places[name]
        tiles = len(m.plan.mapping.row_tiles(weight.shape[1]))
        expected = (tiles, 2, weight.shape[0]) if what == "affine" else ()
        if tuple(value.shape) != expected:
            raise InputError(f"state: expected shape {expected} of {key!r}; got {tuple(value.shape)}")
    for name, (m, weight) in places.items():
        for what in CALIBRATED:
            value = state.get(f"{name}.{what}")
            setattr(m, what, None if value is None else value.to(weight.device, copy=True))


def _by_place(model: nn.Module) -> dict[str, tuple[Crossbar, Tensor]]:
    """Crossbars that hold weights, by their place in the model, with those weights (outputs, rows)."""
    next(crossbars(model))
    weights = {id(c): w for m in model.modules() if isinstance(m, AnalogLayer) for c, w in m.matrices()}
    return {name: (m, weights[id(m)]) for name, m in model.named_modules() if isinstance(m, Crossbar) and id(m) in weights}
