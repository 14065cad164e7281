"""The unit cell's static law: apparent weight of a PCM behind its select transistor, and the leakage of an idle cell.

Written once, in torch: the fits differentiate these functions and the tile model runs them.
Voltages: ``v_bit`` and ``v_return`` of the cell's bit- and return-line nodes [V], the cell sees their difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.checks import check_choice

APPARENT_WEIGHTS = ("quadratic", "cubic", "rational")


@dataclass(frozen=True)
class CellParameters:
    """Fitted numbers of the cell; every field is a scalar tensor (or float).

    r_on_ohm: triode resistance of the select transistor at the reference width, source grounded.
    dw_um: drawn minus effective width, R_on ∝ 1/(W − dw).
    k_source_per_v: R_on goes with 1/(1 − k_source·V_return): less gate drive, and body effect.
    k_drain_per_v: relative rise of R_on per volt across the transistor (towards saturation).
    i_leak_a, dw_leak_um: sub-threshold current of an idle cell at the reference width; it goes with W − dw_leak.
    v_leak_source_v, v_leak_drain_v: it falls by e per this voltage on the return line, and rises by e per
    this voltage on the bit line (drain-induced barrier lowering).
    i_gate_a: gate tunnelling current of a conducting cell at the reference width. It flows from the word line
    into the return line, so the read-out does not see it, but the return line's voltage does.
    v_gate_source_v: it falls by e per this voltage on the return line.
    w_ref_um, v_read_v: the point about which the above hold.
    leak_factor: leakage of each cell over its nominal one, a number or (..., rows) (models/mismatch.py); r_on_ohm may be
    (..., rows) likewise.
    """

    r_on_ohm: Tensor | float
    dw_um: Tensor | float
    k_source_per_v: Tensor | float
    k_drain_per_v: Tensor | float
    i_leak_a: Tensor | float
    dw_leak_um: Tensor | float
    v_leak_source_v: Tensor | float
    v_leak_drain_v: Tensor | float
    i_gate_a: Tensor | float
    v_gate_source_v: Tensor | float
    w_ref_um: float
    v_read_v: float
    apparent_weight: str = "rational"
    leak_factor: Tensor | float = 1.0


def on_resistance(p: CellParameters, w_select_um: Tensor | float) -> Tensor | float:
    """R_on of a select transistor of drawn width ``w_select_um`` [Ω], source grounded, no voltage across it."""
    return p.r_on_ohm * (p.w_ref_um - p.dw_um) / (w_select_um - p.dw_um)


def apparent_conductance(conductance_s: Tensor, resistance_ohm: Tensor | float, form: str = "rational") -> Tensor:
    """G_app of a PCM of conductance G in series with R [S].

    rational: G/(1 + G·R), the exact series law. quadratic: G − R·G², the form α·G − β·G² of the tile-circuit paper
    (arXiv 2506.00004) with α = 1, β = R. cubic: one more term of the same series.
    """
    check_choice("apparent_weight", form, APPARENT_WEIGHTS)
    gr = conductance_s * resistance_ohm
    if form == "quadratic":
        return conductance_s * (1 - gr)
    if form == "cubic":
        return conductance_s * (1 - gr + gr * gr)
    return conductance_s / (1 + gr)


@dataclass(frozen=True)
class CellExpansion:
    """A conducting cell about the read voltage and a grounded source, V = V_bit − V_return:

    I = V·(g − source·V_return/(1 − k_source·V_return) − drain·(V − v_read)).
    """

    g_s: Tensor
    source_s_per_v: Tensor
    drain_s_per_v: Tensor


def read_conductance(p: CellParameters, conductance_s: Tensor, w_select_um: Tensor | float) -> tuple[Tensor, Tensor]:
    """``expand``'s conductance g_s at the read voltage, and the share of it that falls across the transistor."""
    r = on_resistance(p, w_select_um)
    share = conductance_s * r / (1 + conductance_s * r)
    r_read = r * (1 + p.k_drain_per_v * p.v_read_v * share)
    return apparent_conductance(conductance_s, r_read, p.apparent_weight), share


def expand(p: CellParameters, conductance_s: Tensor, w_select_um: Tensor | float) -> CellExpansion:
    """First-order expansion of conducting cells; any shape, same shape out.

    The voltage across the transistor is V·G·R/(1 + G·R); it raises R by k_drain per volt, and the return
    line's voltage raises it by k_source per volt. Both enter through dG_app/dR = −G_app².
    """
    r = on_resistance(p, w_select_um)
    g, share = read_conductance(p, conductance_s, w_select_um)
    slope = g * g * r
    return CellExpansion(g, slope * p.k_source_per_v, slope * p.k_drain_per_v * share)


def cell_current(
    p: CellParameters, conductance_s: Tensor, v_bit: Tensor, v_return: Tensor, w_select_um: Tensor | float
) -> Tensor:
    """Current of a conducting cell [A], from the bit to the return line; arguments broadcast."""
    v = v_bit - v_return
    e = expand(p, conductance_s, w_select_um)
    return v * conducting(p, e.g_s, e.source_s_per_v, e.drain_s_per_v, v, v_return)


def conducting(p: CellParameters, g_s: Tensor, source: Tensor, drain: Tensor, v: Tensor, v_return: Tensor) -> Tensor:
    """Conductance of cells, or of a segment's sums of cells, at voltage ``v`` and return-line voltage ``v_return`` [S]."""
    return g_s - source * v_return / (1 - p.k_source_per_v * v_return) - drain * (v - p.v_read_v)


def gate_current(p: CellParameters, v_return: Tensor, w_select_um: Tensor | float) -> Tensor:
    """Tunnelling current from the word line through a conducting cell's gate into the return line [A]."""
    return p.i_gate_a * (w_select_um / p.w_ref_um) * torch.exp(-v_return / p.v_gate_source_v)


def leakage_current(p: CellParameters, v_bit: Tensor, v_return: Tensor, w_select_um: Tensor | float) -> Tensor:
    """Sub-threshold current of an idle cell behind a large PCM [A].

    Exponential in the source's voltage and, by barrier lowering, in the drain's; with the diffusion factor
    1 − exp(−V_DS/v) of a short transistor. ``idle_weight`` is what a small PCM leaves of it.
    """
    width = (w_select_um - p.dw_leak_um) / (p.w_ref_um - p.dw_leak_um)
    exponent = (v_bit - p.v_read_v) / p.v_leak_drain_v - v_return / p.v_leak_source_v
    swept = -torch.expm1((v_return - v_bit) / p.v_leak_source_v)
    return p.i_leak_a * width * torch.exp(exponent) * swept


def idle_weight(p: CellParameters, conductance_s: Tensor, w_select_um: Tensor | float) -> Tensor:
    """Share of ``leakage_current`` that a cell passes: its own ``leak_factor``, less the leakage's drop over the PCM
    (first order; 0.98 at 0.1 µS)."""
    width = p.leak_factor * (w_select_um - p.dw_leak_um) / (p.w_ref_um - p.dw_leak_um)
    return p.leak_factor / (1 + p.i_leak_a * width / (conductance_s.clamp(min=1e-9) * p.v_leak_drain_v))
