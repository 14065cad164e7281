"""One weight matrix on tiles: split over rows, written as pairs, driven in phases, read, scaled and added digitally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from aimcard.models.domain import check_domain
from aimcard.models.errors import InputError
from aimcard.models.nn.hardware import Hardware
from aimcard.models.nn.inputs import input_scale, pulse_codes
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.pairs import Written, write
from aimcard.models.nn.streams import stream
from aimcard.models.nn.usage import Usage
from aimcard.models.pcm import normal_like


@dataclass(frozen=True)
class Plan:
    """What a crossbar is made of: the tile, in the mapping's PWM mode, the mapping, the switches, and the name that its random
    streams have."""

    hardware: Hardware
    mapping: Mapping
    non_idealities: NonIdealities
    name: str = ""

    def __post_init__(self) -> None:
        hardware = self.hardware.in_mode(self.mapping.mode, self.mapping.phase_rule)
        object.__setattr__(self, "hardware", hardware)

    def part(self, name: str) -> Plan:
        """The same for a part of the layer."""
        return replace(self, name=f"{self.name}.{name}" if self.name else name)


class Crossbar(nn.Module):
    """The product x·Wᵀ on tiles. Holds no weights and adds no key to a state dict.

    ``training_switches``: what acts while ``training`` (None: the same as in evaluation). ``observer``: called with
    (crossbar, weight, x) in calibration runs, which otherwise compute the digital product.
    """

    affine: Tensor | None
    input_level: Tensor | None

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        check_domain(plan.hardware.model.card, conductance_s=[plan.mapping.g_min_s, plan.mapping.g_max_s])
        self.plan = plan
        self.training_switches: NonIdealities | None = None
        self.observer: Callable[[Crossbar, Tensor, Tensor], None] | None = None
        self.usage: Usage | None = None
        self.register_buffer("affine", None, persistent=False)
        self.register_buffer("input_level", None, persistent=False)
        self._written: dict[int, tuple[Any, Written]] = {}
        self._tiles: dict[int, tuple[Any, Any, Written, Any]] = {}
        self._chips: dict[tuple[Any, ...], Any] = {}
        self._fresh: torch.Generator | None = None

    def __deepcopy__(self, memo: dict) -> Crossbar:
        new = type(self)(self.plan)
        new.training_switches, new.training = self.training_switches, self.training
        for name in ("affine", "input_level"):
            value = getattr(self, name)
            setattr(new, name, None if value is None else value.detach().clone())
        memo[id(self)] = new
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Without what is worked out again when it is needed."""
        state = self.__dict__.copy()
        return state | {"_written": {}, "_tiles": {}, "_chips": {}, "observer": None, "usage": None, "_fresh": None}

    @property
    def switches(self) -> NonIdealities:
        """The non-idealities that act now."""
        if self.training and self.training_switches is not None:
            return self.training_switches
        return self.plan.non_idealities

    def reset(self, non_idealities: NonIdealities | None = None) -> None:
        """Write the devices anew and begin all random streams again, with other switches if given."""
        if non_idealities is not None:
            self.plan = replace(self.plan, non_idealities=non_idealities)
        self._written.clear()
        self._tiles.clear()
        self._fresh = None

    def forward(self, weight: Tensor, x: Tensor) -> Tensor:
        """As ``product``. torch.compile leaves it as it is, one break of the graph, and compiles what lies around it."""
        if torch.compiler.is_compiling():
            # Its stubs give back what decorates a function, not a function.
            product = cast(Callable[..., Tensor], torch.compiler.disable(self.product))
            return product(weight, x)
        return self.product(weight, x)

    def product(self, weight: Tensor, x: Tensor) -> Tensor:
        """weight (outputs, rows), x (..., rows) -> (..., outputs); or tiles, (tiles, outputs, rows) and (tiles, batch, rows).

        Raises InputError on inputs that the mapping refuses, and where rows and inputs are not as many.
        """
        if x.shape[-1] != weight.shape[-1]:
            raise InputError(
                f"inputs of {self.plan.name or 'a layer'}: expected {weight.shape[-1]} in the last dimension, as many as its "
                f"weights have rows; got {x.shape[-1]}"
            )
        if torch.is_inference_mode_enabled():
            # What is kept of the weights must serve outside of inference mode too.
            with torch.inference_mode(False), torch.no_grad():
                return self.product(weight, x)
        if self.observer is not None:
            with torch.no_grad():
                self.observer(self, weight, x.detach().flatten(0, -2))
            return x @ weight.mT
        if not x.numel():
            return x @ weight.mT
        # Counts and differences of charges need more digits than half precision has, whatever autocast wants.
        wide = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
        n = self.switches
        if n.seed is None:
            self._fresh = None
        with torch.autocast(x.device.type, enabled=False):
            vectors = x.reshape(-1, x.shape[-1]) if weight.ndim == 2 else x
            try:
                out = self.scaled(weight.to(wide), vectors.to(wide))
            except InputError as error:
                # The tile speaks of codes; who feeds a network wants to know which layer got what.
                if not bool(vectors.isfinite().all()):
                    raise InputError(
                        f"inputs of {self.plan.name or 'a layer'}: expected finite numbers; got NaN or infinite ones; "
                        "look at the layer before"
                    ) from error
                raise
            if n.output_noise:
                rms = out.detach().square().mean(-2, keepdim=True).sqrt()
                out = out + n.output_noise * rms * normal_like(out.detach(), self.fresh(n))
        return out.reshape(*x.shape[:-1], weight.shape[-2]).to(x.dtype)

    def scaled(self, weight: Tensor, x: Tensor) -> Tensor:
        """The sum of the tiles' partial products after their affine corrections, (..., batch, outputs)."""
        parts = self.partials(weight, x)
        if self.affine is not None:
            corrections = [affine.to(part.dtype) for affine, part in zip(self.affine, parts, strict=True)]
            parts = [scale * part + offset for (scale, offset), part in zip(corrections, parts, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def partials(self, weight: Tensor, x: Tensor) -> list[Tensor]:
        """Each row tile's own product, uncorrected, (..., batch, outputs)."""
        m, n, hardware = self.plan.mapping, self.switches, self.plan.hardware
        if not m.signed and bool((x < 0).any()):
            raise InputError(
                f"inputs of {self.plan.name or 'a layer'}: expected none below 0 (signed=False); got {float(x.min()):.4g}; "
                "map with signed=True"
            )
        level = self._level() if m.input_range == "fixed" else None
        scale = input_scale(x, level, n.input_clip)
        codes = pulse_codes(x, scale, hardware.code_max, rounding=n.input_rounding, clip=n.input_clip and level is not None)
        if self.usage is not None:
            self.usage.note_inputs(x, scale)
        parts = []
        for k, rows in enumerate(m.row_tiles(x.shape[-1])):
            held = self.written(weight, rows, k, n)
            charge = self._difference(held, codes[..., rows], n, k)
            lsb = hardware.unit_c * (m.g_max_s - m.g_min_s) * hardware.code_max
            parts.append((charge * (held.scale.mT / lsb)).mul_(scale))
        return parts

    def _level(self) -> Tensor:
        if self.input_level is None:
            raise InputError(
                f"{self.plan.name or 'a layer'}: its fixed input range is not calibrated; "
                "call calibrate_inputs(model, batches), or map with input_range='vector'"
            )
        return self.input_level

    def _difference(self, held: Written, codes: Tensor, n: NonIdealities, k: int) -> Tensor:
        """Charge of the signed product, averaged over pairs [C], (..., batch, outputs)."""
        generator = self.fresh(n) if n.draws else None
        chip = self.chip(k, held, n) if n.mismatch else None
        tile, lines = self._tile(k, held, n, codes.dtype, chip)
        plan = self.plan
        charge = plan.hardware.signed_charge(tile, lines, codes, n, plan.mapping, generator, self.usage, chip)
        if len(held.factors) == 1:
            return charge.to(codes.dtype)
        per_pair = charge.unflatten(-1, (len(held.factors), -1))
        return (per_pair * held.factors[:, None]).sum(-2).to(codes.dtype)

    def _tile(self, k: int, held: Written, n: NonIdealities, dtype: torch.dtype, chip: Any) -> tuple[Any, Any]:
        """The product of row tile ``k`` and the conductances of its lines.

        A product recognises its last weights by the tensors themselves, so they stay alive here until the next ones are made.
        """
        key = (n.effects, n.wire_scale, n.mismatch, n.chip, dtype)
        kept = self._tiles.get(k)
        if kept is not None and kept[0] == key and kept[2] is held:
            return kept[1], kept[3]
        tile = kept[1] if kept is not None and kept[0] == key else self.plan.hardware.tile(n, dtype)
        lines = self.plan.hardware.lines(held, n, chip)
        self._tiles[k] = (key, tile, held, lines)
        return tile, lines

    def chip(self, k: int, held: Written, n: NonIdealities) -> Any:
        """The mismatch of row tile ``k``, drawn once."""
        key = (k, n.chip, *held.conductance_s.shape)
        if key not in self._chips:
            self._chips = {at: drawn for at, drawn in self._chips.items() if at[0] != k}
            self._chips[key] = self.plan.hardware.draw_chip(n.chip, f"{self.plan.name}/{k}", held)
        return self._chips[key]

    def fresh(self, n: NonIdealities) -> torch.Generator:
        """The stream of what is drawn at every call: without a seed, one of torch's global generator for each call."""
        if self._fresh is None:
            seed = int(torch.randint(2**62, ())) if n.seed is None else n.seed
            self._fresh = stream(seed, self.plan.name, "call")
        return self._fresh

    def written(self, weight: Tensor, rows: slice, k: int, n: NonIdealities) -> Written:
        """The conductances of row tile ``k``: kept in evaluation, as long as weight and switches stay."""
        keep = not torch.is_grad_enabled() and not n.weight_noise
        key = (weight.data_ptr(), weight._version, weight.dtype, n, self.plan.mapping)
        if keep and k in self._written and self._written[k][0] == key:
            return self._written[k][1]
        fixed = stream(n.seed or 0, self.plan.name, k, "devices")
        fresh = self.fresh(n) if n.weight_noise else None
        held = write(weight[:, rows], self.plan.mapping, n, fixed, fresh, self.plan.hardware.lines_per_pair)
        if keep:
            self._written[k] = (key, held)
        return held


class DynamicCrossbar(Crossbar):
    """Products of two activations, a matrix each: they are written anew at every call, so nothing is calibrated or kept."""

    def written(self, weight: Tensor, rows: slice, k: int, n: NonIdealities) -> Written:
        """As `Crossbar.written`, with fresh programming errors at every call and no drift: nothing is old enough."""
        del k
        fresh = self.fresh(n)
        still = replace(n, drift=False) if n.drift else n
        return write(weight[..., rows], self.plan.mapping, still, fresh, fresh, self.plan.hardware.lines_per_pair)

    def _level(self) -> Tensor | None:  # type: ignore[override]
        return None
