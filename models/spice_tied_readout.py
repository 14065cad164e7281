"""The read-out of a tied card as ngspice text: regulator on its bias, mirror, ring, and the signed count."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from aimcard.models.readout import SPEED, TAPS
from aimcard.models.spice_form import RAMP_S
from aimcard.models.spice_readout import pwl_points
from aimcard.models.tied_readout import BLOCKS, HALF_PER_BIAS, TERMS, Y_REF_S

READOUT = """\
* Regulator on its bias, current mirror and oscillator of the card.
*   bl            the column's pin
*   run           the oscillator counts while it is above 0.5 V, and is reset below
*   iline imir    the line's and the mirror's current flow out of them: end each in a voltage source of 0 V
*   phase rest    counts before truncation, and those of the resting column over the same time, bias included, 1 V each
*   count         what the counter shows: both truncated, the resting column's subtracted; it has a sign
* y: conductance of the column at the read-out [S], about the sum of its cells'; w: width of its select transistors [um];
* offset: of this regulator, beside the one in the card's table [V]. Inside: v(static), v(lagged), v(seen) in uA.
.subckt aim_readout bl run iline imir phase rest count params: y=4m w={w} offset=0
* Charge per ampere of a step of the current in its slot and the two after it [ns]; _i: what small current adds.
.param yr={{y/{y_ref:g}}} wr={{w/{w_ref} - 1}} half={{1e6*{half}*aim_bias_a}}
{times}
Vcol end bl 0
* Clamp voltage [V] against the line's static current [uA].
Bclamp end 0 V=offset + pwl(1e6*i(Vcol),
{clamp})
Bstatic static 0 V=1e6*i(Vcol)
* v(smooth) follows it within 20 ps: a delay line that sees every wiggle of the column's charges makes ngspice crawl.
Rsmooth static smooth 20
Csmooth smooth 0 1p
Esmooth after 0 smooth 0 1
* A step's charges flow in the rest of its slot, and alike in the slots after it: as long as the current of `span` ago is
* the one of before the step.
.param span={{aim_t_lsb_s - aim_edge_last_s - 5*{ramp}}} ns={{1e9*span}}
Tbefore after 0 before 0 Z0=1 TD={{span}} rel=10
Rbefore before 0 1
* The smaller the regulator's current, halfway between before and after, the slower it is.
Bslow slow 0 V=1/(1 + {after}*max(v(after) + 1e6*aim_bias_a, 0)/half
+ + {earlier}*max(v(before) + 1e6*aim_bias_a, 0)/half)
{lags}
Bline 0 iline I=i(Vcol) + 1u*v(clamp_lag)
Blagged lagged 0 V=1e6*i(Vcol) + v(clamp_lag) + v(mirror_lag)
* Mirror current [uA] against the lagged line current [uA], bias included.
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
Xring seen run phase aim_ring
Xrest idle run rest aim_ring
Bcount count 0 V=floor(v(phase)) - floor(v(rest))
.ends aim_readout

* The oscillator: count rate [1/ns] against the line current that it sees [uA]; 1 pF and 1 mA make 1 count a ns.
.subckt aim_ring seen run phase
Cphase phase 0 1p
Bphase 0 phase I=v(run) > 0.5 ? 1m*pwl(v(seen),
{adc}) : (aim_phase_start - v(phase))
.ends aim_ring
"""


def tied_readout_library(tables: Mapping[str, tuple[Tensor, Tensor]], *, w_ref_um: float, w_select_um: float) -> str:
    """Subcircuits ``aim_readout`` and ``aim_ring`` with the tables ``clamp``, ``mirror`` and ``adc`` of a card (SI units)."""
    return READOUT.format(
        w=f"{w_select_um:.9g}", w_ref=f"{w_ref_um:.9g}", y_ref=Y_REF_S, half=f"{HALF_PER_BIAS:g}", ramp=f"{RAMP_S:g}",
        after=f"{SPEED:g}", earlier=f"{1 - SPEED:g}",
        times="\n".join(_times(block) for block in BLOCKS), lags="\n".join(_lag(block) for block in BLOCKS),
        clamp=pwl_points(*tables["clamp"], 1e6, 1.0), mirror=pwl_points(*tables["mirror"], 1e6, 1e6),
        adc=pwl_points(*tables["adc"], 1e6, 1e-9),
    )  # fmt: skip


def _times(block: str) -> str:
    """The step response's polynomials in the column's conductance and the transistors' width, for each tap."""
    lines = []
    for tap in range(TAPS):
        for idle, mark in ((False, ""), (True, "_i")):
            parts = [
                f"aim_{block}_step_{tap}{term}_s{'*yr' * n}{'*wr' * m}" for term, n, m, i in TERMS if i == idle
            ]  # fmt: skip
            lines.append(f".param {block}_t{tap}{mark}={{1e9*({' + '.join(parts)})}}")
    return "\n".join(lines)


def _lag(block: str) -> str:
    """Node ``v(<block>_lag)`` [uA]: what steps of the static current leave in their own slot and in the two after it."""
    lines = [f"* Lag of the {block}; d_k comes k slots after the step."]
    for tap in reversed(range(TAPS)):
        node = f"{block}_s{tap}" if tap else f"{block}_lag"
        later = f" + v({block}_d{tap + 1})" if tap < TAPS - 1 else ""
        lines.append(f"B{node} {node} 0 V=v(after,before)*({block}_t{tap} + {block}_t{tap}_i*v(slow))/ns{later}")
        if tap:
            lines += [
                f"T{block}{tap} {node} 0 {block}_d{tap} 0 Z0=1 TD={{aim_t_lsb_s}} rel=10",
                f"R{block}_d{tap} {block}_d{tap} 0 1",
            ]
    return "\n".join(lines)
