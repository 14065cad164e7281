"""Whole models to tiles and back. Both functions return a copy and leave the given model as it is."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as Dictionary
from typing import Any

from torch import nn

from aimcard.models.card import Card
from aimcard.models.checks import did_you_mean
from aimcard.models.errors import InputError
from aimcard.models.nn.attention import AnalogMultiheadAttention, AnalogProducts
from aimcard.models.nn.crossbar import Crossbar, Plan
from aimcard.models.nn.hardware import Hardware
from aimcard.models.nn.huggingface import (
    PRODUCTS,
    AnalogConv1D,
    convert_attention,
    is_attention,
    is_conv1d,
    restore_attention,
)
from aimcard.models.nn.layer import AnalogConv1d, AnalogConv2d, AnalogLayer, AnalogLinear
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel

Predicate = Callable[[nn.Module, str], bool]
Override = Mapping | NonIdealities | tuple[Mapping, NonIdealities]
LAYERS: tuple[type[AnalogLayer], ...] = (AnalogMultiheadAttention, AnalogLinear, AnalogConv1d, AnalogConv2d)
#: Name under which the two products of an attention module are selected, after the module's own name.
PRODUCTS_NAME = "products"


def analog_class(module: nn.Module) -> type[AnalogLayer] | None:
    """The analog layer that stands for a module, if there is one; parametrised modules stay digital."""
    if hasattr(module, "parametrizations"):
        return None
    if is_conv1d(module):
        return AnalogConv1D
    for kind in LAYERS:
        if isinstance(module, kind.digital):
            return kind
    return None


def convert_to_analog(
    model: nn.Module,
    card: Card | TileModel | TiedTile | Hardware,
    *,
    mapping: Mapping | None = None,
    non_idealities: NonIdealities | None = None,
    predicate: Predicate | None = None,
    exclude: Iterable[str] = (),
    overrides: Dictionary[str, Override] | None = None,
    accuracy: str | float = "fast",
) -> Any:
    """A copy with Linear, Conv1d, Conv2d and attention on tiles of ``card``; everything else is left alone.

    predicate: (module, qualified name) -> whether to convert it. exclude: names or shell patterns that stay digital;
    the two products of an attention module ``a`` are ``a.products``. overrides: a Mapping, NonIdealities or both for
    names or patterns; the last that fits wins. accuracy: as ``FastTile``'s or ``TiedProduct``'s.
    Raises InputError on a pattern that fits no layer, and if nothing is left to convert.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: expected a torch.nn.Module; got {type(model).__name__}")
    hardware = card if isinstance(card, Hardware) else Hardware(card, accuracy)
    chosen = _Choice(model, predicate, [exclude] if isinstance(exclude, str) else list(exclude), dict(overrides or {}))
    default = Plan(hardware, mapping or Mapping(), non_idealities or NonIdealities())
    chosen.check()
    new = copy.deepcopy(model)
    made: dict[int, nn.Module] = {}
    out = _convert(new, "", default, chosen, made)
    if not chosen.converted:
        raise InputError(
            "model: nothing to convert: no Linear, Conv1d, Conv2d or attention is selected; see exclude and predicate"
        )
    return out


class _Choice:
    """Which layers are converted, and how."""

    def __init__(self, model: nn.Module, predicate: Predicate | None, exclude: list[str], overrides: dict[str, Override]):
        self.predicate, self.exclude, self.overrides = predicate, exclude, overrides
        self.names = [name for name, module in _layers(model)]
        self.converted: list[str] = []

    def check(self) -> None:
        for option, patterns in (("exclude", self.exclude), ("overrides", list(self.overrides))):
            for pattern in patterns:
                if not any(_fits(name, pattern) for name in self.names):
                    raise InputError(f"{option}: no layer is called {pattern!r}{did_you_mean(pattern, self.names)}; see show")
        for name, value in self.overrides.items():
            for part in value if isinstance(value, tuple) else (value,):
                if not isinstance(part, Mapping | NonIdealities):
                    raise InputError(f"overrides[{name!r}]: expected Mapping or NonIdealities; got {type(part).__name__}")

    def takes(self, module: nn.Module, name: str) -> bool:
        out = not any(_fits(name, pattern) for pattern in self.exclude)
        return out and (self.predicate is None or bool(self.predicate(module, name)))

    def plan(self, default: Plan, name: str) -> Plan:
        mapping, non_idealities = default.mapping, default.non_idealities
        for pattern, value in self.overrides.items():
            if _fits(name, pattern):
                for part in value if isinstance(value, tuple) else (value,):
                    if isinstance(part, Mapping):
                        mapping = part
                    else:
                        non_idealities = part
        return Plan(default.hardware, mapping, non_idealities, name)


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        kind = analog_class(module)
        if kind is not None:
            yield name, module
        if kind is AnalogMultiheadAttention or is_attention(module):
            yield f"{name}.{PRODUCTS_NAME}".lstrip("."), module


def _convert(module: nn.Module, name: str, default: Plan, chosen: _Choice, made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    old, products = module, f"{name}.{PRODUCTS_NAME}".lstrip(".")
    made[id(old)] = old
    for part, child in list(module._modules.items()):
        if child is not None:
            module._modules[part] = _convert(child, f"{name}.{part}".lstrip("."), default, chosen, made)
    kind = analog_class(module)
    if kind is not None and chosen.takes(module, name):
        module = kind.from_digital(old, chosen.plan(default, name))
        chosen.converted.append(name)
        if isinstance(module, AnalogMultiheadAttention):
            takes = chosen.takes(old, products)
            module.products = AnalogProducts(chosen.plan(default, products)) if takes else None
    elif is_attention(module) and chosen.takes(module, products):
        convert_attention(module, chosen.plan(default, products))
        chosen.converted.append(products)
    made[id(old)] = module
    # Parents set references outside _modules only in lists and dicts of modules, which torch itself forbids.
    return module


def convert_to_digital(model: nn.Module) -> Any:
    """A copy with every analog layer as the digital layer it was made of, its parameters bit for bit."""
    return _restore(copy.deepcopy(model), {})


def _restore(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    old = module
    made[id(old)] = old
    if isinstance(getattr(module, PRODUCTS, None), AnalogProducts):
        restore_attention(module)
    if isinstance(module, AnalogLayer):
        module = module.to_digital()
    for part, child in list(module._modules.items()):
        if child is not None:
            module._modules[part] = _restore(child, made)
    made[id(old)] = module
    return module


def crossbars(model: nn.Module) -> Iterator[tuple[str, Crossbar]]:
    """Every crossbar of a model, with the name of its plan, once."""
    found = [(m.plan.name, m) for m in model.modules() if isinstance(m, Crossbar)]
    if not found:
        raise InputError("model: expected a converted model; this one has no analog layer; call convert_to_analog first")
    yield from found


def set_non_idealities(model: nn.Module, non_idealities: NonIdealities) -> None:
    """Give every analog layer of the model these switches, in place, and write all devices anew."""
    for _, crossbar in crossbars(model):
        crossbar.reset(non_idealities)
