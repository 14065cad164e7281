"""The card's column as ngspice text: pulses with the card's edges, a row (wire and cell), and chains of rows.

Currents are the card's equations evaluated node by node, not segment by segment. The charges that a pulse's edges add
go to a node of their own, ``q``, which the read-out collects: the card adds them at the read-out too, and neither its
clamp nor its lags respond to them.
"""

from __future__ import annotations

import numpy as np

from aimcard.models.checks import check_choice
from aimcard.models.spice_form import RAMP_S, continued

#: Span of the charges of a rising edge, in LSB. They flow once the ramp is over and the line has settled, and a shorter
#: span would send a spike through the oscillator's curve, which the card does not have.
RISE_SPAN = 0.5
#: Span of the charges of a falling edge [s]. They flow before the ramp, while the voltages are still those of the pulse.
FALL_SPAN_S = 40e-12

# G in series with r_read, as `apparent_conductance` has it.
_APPARENT = {
    "rational": "gp/(1 + gp*rr)",
    "quadratic": "gp*(1 - gp*rr)",
    "cubic": "gp*(1 - gp*rr + (gp*rr)**2)",
}

PULSE = """\
* One pulse of conventional PWM, code LSB long: a word line with the card's edges.
*   on    0 to 1: how far the select transistors conduct
*   edge  [1/s]: where the charges of the rising (positive) and of the falling edge (negative) flow; area 1 each
* start: begin of the window, one word-line delay before the pulse [s].
.subckt aim_pulse on edge params: code=1 start=1n
.param up={{start + aim_rise_delay_s}} down={{start + max(code, 1)*aim_t_lsb_s + aim_fall_delay_s}}
.param yes={{code > 0 ? 1 : 0}} h={{{ramp}/2}} span={{{rise_span}*aim_t_lsb_s}} fspan={fall_span}
Von on 0 PWL(0 0 {{up - h}} 0 {{up + h}} {{yes}} {{down - h}} {{yes}} {{down + h}} 0)
Vedge edge 0 PWL(0 0 {{up + h}} 0 {{up + h + span/2}} {{yes*2/span}} {{up + h + span}} 0
+ {{down - h - fspan}} 0 {{down - h - fspan/2}} {{-yes*2/fspan}} {{down - h}} 0)
.ends aim_pulse
"""

ROW = """\
* One row of a line: its cell, and the wire of bit and return line to the next row.
*   bit back            this row's nodes;  bit_next back_next  those of the next row towards the read-out
*   on edge             the row's pulse;   q  charges of the edges, to the read-out's pin of that name
* g: conductance of the PCM [S]; w: drawn width of the select transistor [um]; wire: share of a pitch to the next row,
* times the wire scale (the last row has half a pitch to the read-out: wire=0.5).
.subckt aim_row bit bit_next back back_next on edge q params: g=5u w={w} wire=1 scale=1
.param gp={{max(g, 1e-12)}}
.param r={{aim_r_on_ohm*({w_ref} - aim_dw_um)/(w - aim_dw_um)}} share={{gp*r/(1 + gp*r)}}
.param rr={{r*(1 + aim_k_drain_per_v*aim_v_read_v*share)}} ga={{{apparent}}}
.param source={{ga*ga*r*aim_k_source_per_v}} drain={{ga*ga*r*aim_k_drain_per_v*share}}
.param leak_w={{(w - aim_dw_leak_um)/({w_ref} - aim_dw_leak_um)}}
.param leak={{aim_i_leak_a*leak_w/(1 + aim_i_leak_a*leak_w/(max(g, 1n)*aim_v_leak_drain_v))}}
.param gate={{aim_i_gate_a*w/{w_ref}}}
.param cap_w={{(w - aim_dw_cap_um)/({w_ref} - aim_dw_cap_um)}} tau={{aim_c_node_f*cap_w/gp}}
.param node_w={{(w - aim_dw_node_um)/({w_ref} - aim_dw_node_um)}}
.param fall_w={{(w - aim_dw_fall_um)/({w_ref} - aim_dw_fall_um)}}
.param q0={{node_w*aim_q_fall_c + fall_w*aim_i_fall_a*aim_fall_s}}
.param lost={{(w - aim_dw_recharge_um)/({w_ref} - aim_dw_recharge_um)*aim_i_recharge_a*tau}}
.param qbit={{node_w*aim_c_fall_bit_f}} qback={{node_w*aim_c_fall_return_f}}
.param rback={{max(aim_r_return_ohm*scale, 1e-6)/0.15}}
.param push_w={{(w - aim_dw_push_um)/({w_ref} - aim_dw_push_um)*rback**(-aim_n_rise_push)}}
.param push={{push_w*(aim_c_rise_push_f + aim_g_rise_push_s*aim_rise_s)}}
.param pull_w={{(w - aim_dw_pull_um)/({w_ref} - aim_dw_pull_um)*rback**(-aim_n_fall_push)}}
.param pull={{pull_w*(aim_c_fall_push_f + aim_g_fall_push_s*aim_fall_s)}}
* Without wire nothing is pushed into it.
.param wired={{scale > 0 ? 1 : 0}}
.param small={{(w - aim_dw_small_um)/({w_ref} - aim_dw_small_um)*aim_c_small_push_f/(1 + gp/aim_g_small_s)}}
.param late={{aim_t_fall_per_s*({w_ref} - aim_dw_late_um)/(w - aim_dw_late_um)}}
.param tr={{aim_k_gate*aim_rise_s/(0.8*aim_vdd_v)}} tf={{aim_k_gate*aim_fall_s/(0.8*aim_vdd_v)}}
* A wire of nearly 0 Ohm would drown the currents in rounding: 1 uOhm at least.
Rbit bit bit_next {{max(aim_r_bit_ohm*scale*wire, 1u)}}
Rback back back_next {{max(aim_r_return_ohm*scale*wire, 1u)}}
* The conducting cell, and the leakage of the idle one.
Bcell bit back I=v(on)*v(bit,back)*(ga - source*v(back)/(1 - aim_k_source_per_v*v(back)) - drain*(v(bit,back) - aim_v_read_v))
+ + (1 - v(on))*leak*exp((v(bit) - aim_v_read_v)/aim_v_leak_drain_v - v(back)/aim_v_leak_source_v)
+ *(1 - exp(-v(bit,back)/aim_v_leak_source_v))
* Tunnelling through the gate, from the word line into the return line.
Bgate 0 back I=v(on)*gate*exp(-v(back)/aim_v_gate_source_v)
* x: 1 while the internal node is low; after the pulse the bit line recharges it with time constant C/G.
Cx x 0 1p
Rx x 0 1e15
Bx 0 x I=1p*(20*max(v(edge), 0)*(1 - v(x)) - (1 - v(on))*v(x)/tau)
* v(slope)'s branch measures the bit line's slope, by which the wire takes charge, and an idle cell until it begins to conduct.
Cslope bit slope {probe}
Vslope slope 0 0
Bq 0 q I=(1 - v(on))*v(x)/tau*(q0 + qbit*(v(bit) - aim_v_read_v) + qback*v(back)
+ - lost*exp(-v(back)*aim_k_recharge_per_v))
+ + max(v(edge), 0)*(aim_q_rise_c + v(back)*(wired*push - tr*ga*v(bit,back)))
+ + max(-v(edge), 0)*(v(back)*(wired*(pull + small) - tf*ga*v(bit,back)) + late*gp*ga*v(bit,back))
+ + (aim_c_bit_f + aim_c_idle_f*cap_w*max(1 - 50*v(on), 0))/{probe}*i(Vslope)
.ends aim_row
"""


def column_library(apparent_weight: str, *, w_ref_um: float, w_select_um: float) -> str:
    """Subcircuits ``aim_pulse`` and ``aim_row``; their numbers are the parameters aim_... of the netlist."""
    form = check_choice("apparent_weight", apparent_weight, _APPARENT)
    pulse = PULSE.format(ramp=f"{RAMP_S:g}", rise_span=f"{RISE_SPAN:g}", fall_span=f"{FALL_SPAN_S:g}")
    row = ROW.format(apparent=_APPARENT[form], w=f"{w_select_um:.9g}", w_ref=f"{w_ref_um:.9g}", probe="0.01f")
    return f"{pulse}\n{row}"


def column_subcircuit(conductance_s: np.ndarray, codes: np.ndarray, *, w_select_um: float, wire_scale: float) -> str:
    """``.subckt aim_column bl q on.. edge..``: rows (rows,), the first one at the far end, as text.

    Its pulses' pins are those of the distinct codes in rising order; rows of equal code share them.
    """
    used = np.unique(codes)
    buses = " ".join(f"on{code} edge{code}" for code in used)
    lines = [f".subckt aim_column bl q {buses}"]
    rows = len(codes)
    for i, (g, code) in enumerate(zip(conductance_s, codes, strict=True)):
        last = i == rows - 1
        bit_next, back_next, share = ("bl", "0", 0.5) if last else (f"b{i + 1}", f"r{i + 1}", 1)
        lines.append(
            f"Xrow{i} b{i} {bit_next} r{i} {back_next} on{code} edge{code} q aim_row "
            f"g={g * 1e6:.9g}u w={w_select_um:.9g} wire={share:g} scale={wire_scale:.9g}"
        )
    return "\n".join([*continued(lines[:1]), *lines[1:], ".ends aim_column", ""])


def pulses(codes: np.ndarray, start_s: float) -> str:
    """An ``aim_pulse`` for every distinct code."""
    return "".join(
        f"Xpulse{code} on{code} edge{code} aim_pulse code={code} start={start_s:.9g}\n" for code in np.unique(codes)
    )


def column_instance(codes: np.ndarray) -> str:
    """The line that places ``aim_column`` between its pulses and a read-out on nodes ``bl`` and ``q``."""
    buses = " ".join(f"on{code} edge{code}" for code in np.unique(codes))
    return "\n".join(continued([f"Xcolumn bl q {buses} aim_column"])) + "\n"

