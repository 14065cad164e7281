"""The card's read-outs as ngspice text: an ideal clamp, and regulator, mirror and oscillator from the card's tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from aimcard.models.lut import lookup
from aimcard.models.readout import TAPS, response_names

#: Largest error of a piecewise-linear table against the card's smooth one, as a share of the table's largest value.
TABLE_ERROR = 2e-6

CLAMP = """\
* The line's end held at the read voltage, whatever its current.
*   bl q   the column's pins;  iline  the line's current flows out of it: end it in a voltage source of 0 V
.subckt aim_clamp bl q iline
Vcol end bl 0
Vread end 0 {aim_v_read_v}
Vq q 0 0
Bline 0 iline I=i(Vcol) + i(Vq)
.ends aim_clamp
"""

READOUT = """\
* Regulator, current mirror and oscillator of the card.
*   bl q         the column's pins
*   run          the oscillator counts while it is above 0.5 V, and is reset below
*   iline imir   the line's and the mirror's current flow out of them: end each in a voltage source of 0 V
*   phase        counts before truncation, 1 V each
* Inside: v(static), v(lagged), v(seen) in uA; charges of the lags in fC.
.subckt aim_readout bl q run iline imir phase
Vcol end bl 0
Vq q 0 0
* Clamp voltage [V] against the line's static current [uA].
Bclamp end 0 V=pwl(1e6*i(Vcol),
{clamp})
Bstatic static 0 V=1e6*i(Vcol)
* v(smooth) follows it within 20 ps; the current that makes it do so is 1e-6 times the slope [A/s].
Rsmooth static smooth 20
Csmooth smooth 0 1p
{clamp_lag}
{mirror_lag}
Bline 0 iline I=i(Vcol) + i(Vq) + 1u*v(clamp_lag)
Blagged lagged 0 V=1e6*(i(Vcol) + i(Vq)) + v(clamp_lag) + v(mirror_lag)
* Mirror current [uA] against the lagged line current [uA], bleed included.
Bmirror 0 imir I=1u*pwl(v(lagged),
{mirror})
* Until t_wait after `run` the oscillator still feels the idle current; what it misses until then [fC] flows in the rest
* of the first slot. v(clock): time since `run` [ns], to two slots; v(idle) [uA].
Cclock clock 0 1p
Rclock clock 0 1e15
Bclock 0 clock I=v(run) > 0.5 ? (v(clock) < 2e9*aim_t_lsb_s ? 1m : 0) : -v(clock)
Cidle idle 0 1p
Ridle idle 0 1e15
Bidle 0 idle I=v(run) > 0.5 ? 0 : v(lagged) - v(idle)
Bwait wait 0 V=v(run) > 0.5 ? 1 - min(max((v(clock) - 1e9*aim_t_wait_s)/0.01 + 0.5, 0), 1) : 0
Cmissed missed 0 1p
Rmissed missed 0 1e15
Bmissed 0 missed I=v(run) > 0.5 ? 1m*v(wait)*(v(lagged) - v(idle)) : -v(missed)
Bfirst first 0 V=(1 - v(wait))*min(max((1e9*aim_t_lsb_s - v(clock))/0.01 + 0.5, 0), 1)
Bseen seen 0 V=v(lagged) + v(wait)*(v(idle) - v(lagged)) + v(first)*v(missed)/(1e9*(aim_t_lsb_s - aim_t_wait_s))
* Count rate [1/ns] against the line current that it sees [uA]; 1 pF and 1 mA make 1 count a ns.
Cphase phase 0 1p
Bphase 0 phase I=v(run) > 0.5 ? 1m*pwl(v(seen),
{adc}) : (aim_phase_start - v(phase))
.ends aim_readout
"""


def clamp_library() -> str:
    """Subcircuit ``aim_clamp``."""
    return CLAMP


def readout_library(tables: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """Subcircuit ``aim_readout`` with the tables ``clamp``, ``mirror`` and ``adc`` of a card (SI units)."""
    return READOUT.format(
        clamp=pwl_points(*tables["clamp"], 1e6, 1.0), mirror=pwl_points(*tables["mirror"], 1e6, 1e6),
        adc=pwl_points(*tables["adc"], 1e6, 1e-9), clamp_lag=_lag("clamp"), mirror_lag=_lag("mirror"),
    )  # fmt: skip


def _lag(block: str) -> str:
    """Node ``v(<block>_lag)`` [uA]: what a step of the static current leaves in its own slot and in the two after it.

    A step's charge of each tap is kept as a running sum (v(<block>_q0) ... in fC); the difference of the sum and
    itself one span earlier is what flows in the span. The first span ends with the slot, the others are whole slots.
    """
    n = {field: [f"aim_{name}" for name in names] for field, names in response_names(block).items()}
    half, on_half = n["half_a"][0], n["on_half_a"][0]
    lines = [f"* Lag of the {block}: a rise counts as turn-on, a fall as a small step."]
    for k in range(TAPS):
        q = f"{block}_q{k}"
        w, on_w = f"(1 + max(v(smooth), 0)*1u/{half})", f"(1 + max(v(smooth), 0)*1u/{on_half})"
        on = f"1e9*({n['on_s'][k]} + {n['on_idle_s'][k]}/{on_w}**2)"
        step = f"1e9*({n['step_s'][k]} + {n['step_idle_s'][k]}/{w} + {n['step_low_s'][k]}/{w}**2)"
        slope = "v(static,smooth)"
        lines += [f"C{q} {q} 0 1p", f"R{q} {q} 0 1e15"]
        lines += [f"B{q} 0 {q} I={slope}/20*({slope} > 0 ? {on}", f"+ : {step})"]
    lsb, first = "(aim_t_lsb_s*1e9)", "((aim_t_lsb_s - aim_fall_delay_s)*1e9)"
    spans = [first] + [lsb] * (TAPS - 1)
    # d_k enters k spans after the step: tap k begins and tap k - 1 ends there.
    for k in reversed(range(TAPS + 1)):
        begins = f"v({block}_q{k})/{spans[k]}" if k < TAPS else "0"
        ends = f" - v({block}_q{k - 1})/{spans[k - 1]}" if k else ""
        later = f" + v({block}_d{k + 1})" if k < TAPS else ""
        node = f"{block}_s{k}" if k else f"{block}_lag"
        lines.append(f"B{node} {node} 0 V={begins}{ends}{later}")
        if k:
            delay = "{aim_t_lsb_s - aim_fall_delay_s}" if k == 1 else "{aim_t_lsb_s}"
            lines += [f"T{block}{k} {node} 0 {block}_d{k} 0 Z0=1 TD={delay} rel=10", f"R{block}_d{k} {block}_d{k} 0 1"]
    return "\n".join(lines)


def pwl_points(x: Tensor, y: Tensor, x_scale: float, y_scale: float) -> str:
    """Points of a table for ngspice's pwl(), which goes on in a straight line beyond its ends, as the card's does."""
    points = fine_points(x, y)
    pairs = [f"{a * x_scale:.8g},{b * y_scale:.10g}" for a, b in zip(*points, strict=True)]
    rows = [", ".join(pairs[i : i + 5]) for i in range(0, len(pairs), 5)]
    return ",\n".join(f"+ {row}" for row in rows)


def fine_points(x: Tensor, y: Tensor, error: float = TABLE_ERROR) -> tuple[np.ndarray, np.ndarray]:
    """Points whose chords follow the smooth table within ``error`` of its largest value; the knots are among them."""
    allowed = error * float(y.abs().max())
    pieces = torch.ones(len(x) - 1, dtype=torch.int64)
    while True:
        at = torch.cat([_parts(float(a), float(b), int(n)) for a, b, n in zip(x[:-1], x[1:], pieces, strict=True)])
        at = torch.cat([at, x[-1:]])
        value = lookup(x, y, at)
        # Where a cubic leaves its chord furthest is not the middle.
        share = torch.linspace(0.0, 1.0, 17, dtype=x.dtype)
        inside = at[:-1, None] + (at[1:] - at[:-1])[:, None] * share
        off = (lookup(x, y, inside) - value[:-1, None] - (value[1:] - value[:-1])[:, None] * share).abs().amax(-1)
        if bool((off < 0.99 * allowed).all()):
            return at.numpy(), value.numpy()
        owner = torch.repeat_interleave(torch.arange(len(pieces)), pieces)
        too_long = torch.zeros(len(pieces), dtype=torch.bool)
        too_long[owner[off >= 0.99 * allowed]] = True
        pieces = pieces + too_long


def _parts(a: float, b: float, count: int) -> Tensor:
    """``count`` equal parts from a to b, b itself left out; a is kept exactly."""
    return a + (b - a) * torch.arange(count, dtype=torch.float64) / count
