"""What all analog layers share: they hold the digital layer's parameters under its names, and give that layer back."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimcard.models.errors import InputError
from aimcard.models.nn.crossbar import Crossbar, Plan

# What nn.Module keeps for itself; the rest of a module's __dict__ is its own configuration.
_OWN = set(nn.Module().__dict__)
# Hooks that users register stay with the layer; hooks of state dicts speak of the module that they were made for.
_HOOKS = {name for name in _OWN if "hook" in name and name.startswith(("_forward", "_backward", "_is_full_backward"))}


def _hooks(module: nn.Module) -> dict[str, Any]:
    """Copies of a module's tables of hooks, so that later ones are its own."""
    return {name: copy.copy(value) for name, value in vars(module).items() if name in _HOOKS}


class AnalogLayer(nn.Module, ABC):
    """Base of the analog layers. ``from_digital`` and ``to_digital`` share the parameters, they do not copy them."""

    #: The digital class that the layer stands for.
    digital: type[nn.Module] = nn.Module

    def __init__(self) -> None:
        super().__init__()
        self._origin: tuple[type[nn.Module], dict[str, Any]] | None = None

    @classmethod
    def from_digital(cls, module: nn.Module, plan: Plan) -> AnalogLayer:
        """The analog layer of a digital one. Raises InputError if it is of another class."""
        if not isinstance(module, cls.digital):
            raise InputError(f"module: expected {cls.digital.__name__} for {cls.__name__}; got {type(module).__name__}")
        new = cls()
        state = module.__dict__
        vars(new).update({k: v for k, v in state.items() if k not in _OWN} | _hooks(module))
        new._origin = (type(module), {k: v for k, v in state.items() if k not in ("_parameters", "_buffers", "_modules")})
        new._parameters.update(module._parameters)
        new._buffers.update(module._buffers)
        new._modules.update(module._modules)
        new.training = module.training
        new.build(plan)
        for part in new.crossbars():
            part.training = module.training
        return new

    @abstractmethod
    def build(self, plan: Plan) -> None:
        """Make the crossbars; the parameters and configuration of the digital layer are there already."""

    def crossbars(self) -> list[Crossbar]:
        """The layer's own crossbars, not those of layers inside it."""
        return [m for m in self._modules.values() if isinstance(m, Crossbar)]

    @abstractmethod
    def matrices(self) -> list[tuple[Crossbar, Tensor]]:
        """Each crossbar with its weights (outputs, rows)."""

    def to_digital(self) -> nn.Module:
        """The digital layer, of its first class and with these parameters."""
        assert self._origin is not None
        kind, state = self._origin
        new = kind.__new__(kind)
        new.__dict__.update(state)
        new.__dict__["_parameters"] = dict(self._parameters)
        new.__dict__["_buffers"] = dict(self._buffers)
        new.__dict__["_modules"] = {k: m for k, m in self._modules.items() if not self._is_analog(m)}
        new.__dict__.update(_hooks(self))
        new.training = self.training
        return new

    def _is_analog(self, module: nn.Module | None) -> bool:
        return isinstance(module, Crossbar)


class AnalogLinear(AnalogLayer):
    """nn.Linear on tiles; the bias is added digitally."""

    digital = nn.Linear
    weight: Tensor
    bias: Tensor | None

    def build(self, plan: Plan) -> None:
        """As `AnalogLayer.build`: one crossbar."""
        self.crossbar = Crossbar(plan)

    def matrices(self) -> list[tuple[Crossbar, Tensor]]:
        """As `AnalogLayer.matrices`: the layer's weight."""
        return [(self.crossbar, self.weight)]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) to (..., outputs)."""
        out = self.crossbar(self.weight, x)
        return out if self.bias is None else out + self.bias


class _AnalogConv(AnalogLayer):
    """A convolution as the product of its unfolded input; each group has tiles of its own."""

    weight: Tensor
    bias: Tensor | None
    groups: int
    padding_mode: str
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    stride: tuple[int, ...]
    _reversed_padding_repeated_twice: list[int]

    def build(self, plan: Plan) -> None:
        for k in range(self.groups):
            self._modules[f"crossbar_{k}"] = Crossbar(plan.part(f"group{k}") if self.groups > 1 else plan)

    def matrices(self) -> list[tuple[Crossbar, Tensor]]:
        return list(zip(self.crossbars(), self.weight.flatten(1).chunk(self.groups), strict=True))

    def patches(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Padded windows (batch, positions, channels · kernel) and the output's spatial shape."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        flat = x.ndim == 3
        image = x[:, :, None] if flat else x
        kernel, dilation, stride = ((1, *v) if flat else tuple(v) for v in (self.kernel_size, self.dilation, self.stride))
        shape = tuple(
            (n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(image.shape[2:], kernel, dilation, stride, strict=True)
        )
        return F.unfold(image, kernel, dilation=dilation, stride=stride).mT, shape[1:] if flat else shape

    def forward(self, x: Tensor) -> Tensor:
        dims = self.weight.ndim - 1
        single = x.ndim == dims
        windows, shape = self.patches(x[None] if single else x)
        parts = windows.chunk(self.groups, dim=-1)
        out = torch.cat([c(w, part) for (c, w), part in zip(self.matrices(), parts, strict=True)], dim=-1)
        if self.bias is not None:
            out = out + self.bias
        out = out.mT.unflatten(-1, shape)
        return out[0] if single else out


class AnalogConv1d(_AnalogConv):
    """nn.Conv1d on tiles."""

    digital = nn.Conv1d


class AnalogConv2d(_AnalogConv):
    """nn.Conv2d on tiles."""

    digital = nn.Conv2d
