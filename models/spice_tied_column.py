"""The card's tied column as ngspice text: a row's two source lines with the card's edges, a row (wire and both cells),
and chains of rows.

Currents are the card's equations evaluated node by node. A cell is its PCM as a resistor and its select transistor as a
behavioural one, joined at the cell's inner node: the network finds by itself the share of the voltage that the
transistor takes, which the card's equation iterates for. Charges of the edges are the network's own as well: the source
lines move at the card's instants, and every row's capacitance hangs at its node.
"""

from __future__ import annotations

import numpy as np

from aimcard.models.spice_form import RAMP_S, continued

# The share of the read voltage that arrives at a cell, as models/source_line.py has it.
GAIN = """\
* What switches and row wire leave of the read voltage at this column: the leaky line of source_line.py.
.param aim_load_s={aim_row_load_s/(1 + aim_row_load_s*aim_r_on_ohm)}
.param aim_row_k={sqrt(max(aim_row_columns**2*aim_r_row_ohm*aim_load_s, 1e-12))}
.param aim_row_y={aim_row_columns*aim_load_s*tanh(aim_row_k)/aim_row_k}
.param aim_row_gain={cosh(aim_row_k*(1 - aim_position))/cosh(aim_row_k)}
.param aim_gain_down={aim_row_gain/(1 + aim_r_down_ohm*aim_row_y)}
.param aim_gain_up={aim_row_gain/(1 + aim_r_up_ohm*aim_row_y)}
"""

SOURCE = """\
* The two source lines of a row: a conventional pulse of abs(code) LSB, with the card's edges, about the common mode.
*   plus minus     the lines [V]: a positive code pulls plus down and minus up, a negative one the other way, 0 leaves both
*   dplus dminus   [V/ns] their slopes, smooth over an edge, by which a cell's own lag is made
* start: begin of the window [s].
.subckt aim_source plus minus dplus dminus params: code=1 start=1n
.param yes={{code == 0 ? 0 : 1}} pos={{code > 0 ? 1 : 0}} h={{{ramp}/2}} stop={{start + max(abs(code), 1)*aim_t_lsb_s}}
.param down={{-yes*aim_v_read_v*aim_gain_down}} up={{yes*aim_v_read_v*aim_gain_up}}
.param on_down={{start + aim_edge_down_start_s + aim_t_start_s}} off_down={{stop + aim_edge_down_end_s + aim_t_end_s}}
.param on_up={{start + aim_edge_up_start_s + aim_t_start_s}} off_up={{stop + aim_edge_up_end_s + aim_t_end_s}}
.param vp={{pos > 0.5 ? down : up}} vm={{pos > 0.5 ? up : down}}
.param on_p={{pos > 0.5 ? on_down : on_up}} off_p={{pos > 0.5 ? off_down : off_up}}
.param on_m={{pos > 0.5 ? on_up : on_down}} off_m={{pos > 0.5 ? off_up : off_down}}
Vplus plus 0 PWL(0 {{aim_v_common_v}} {{on_p - h}} {{aim_v_common_v}} {{on_p + h}} {{aim_v_common_v + vp}}
+ {{off_p - h}} {{aim_v_common_v + vp}} {{off_p + h}} {{aim_v_common_v}})
Vminus minus 0 PWL(0 {{aim_v_common_v}} {{on_m - h}} {{aim_v_common_v}} {{on_m + h}} {{aim_v_common_v + vm}}
+ {{off_m - h}} {{aim_v_common_v + vm}} {{off_m + h}} {{aim_v_common_v}})
Vdplus dplus 0 PWL(0 0 {{on_p - h}} 0 {{on_p}} {{1n*vp/h}} {{on_p + h}} 0
+ {{off_p - h}} 0 {{off_p}} {{-1n*vp/h}} {{off_p + h}} 0)
Vdminus dminus 0 PWL(0 0 {{on_m - h}} 0 {{on_m}} {{1n*vm/h}} {{on_m + h}} 0
+ {{off_m - h}} 0 {{off_m}} {{-1n*vm/h}} {{off_m + h}} 0)
.ends aim_source
"""

ROW = """\
* One row of a tied column: its pair of cells, always connected, and the column's wire to the next row.
*   bit bit_next               this row's node, and the next row's towards the read-out
*   plus minus dplus dminus    the row's source lines
* gp, gm: conductances of the PCMs at plus and minus line [S]; w: drawn width of the select transistors [um]; wire: share of
* a pitch to the next row, times the wire scale (the last row has half a pitch to the read-out: wire=0.5).
.subckt aim_row bit bit_next plus minus dplus dminus params: gp=5u gm=5u w={w} wire=1 scale=1
.param r={{aim_r_on_ohm*({w_ref} - aim_dw_um)/(w - aim_dw_um)}} g1={{max(gp, 1e-12)}} g2={{max(gm, 1e-12)}}
.param gate={{2*aim_i_gate_a*w/{w_ref}}}
* A wire of nearly 0 Ohm would drown the currents in rounding: 100 uOhm at least.
Rbit bit bit_next {{max(aim_r_bit_ohm*scale*wire, 100u)}}
Cbit bit 0 {{aim_c_column_f + aim_c_width_f*(w/{w_ref} - 1)}}
* PCM, what its cell lags behind the source line, and the select transistor; nodes np and nm are the cells' inner ones.
Rplus plus np {{1/g1}}
Rminus minus nm {{1/g2}}
Glagp np plus dplus 0 {{1e9*g1*g1*aim_t_node_s_per_s}}
Glagm nm minus dminus 0 {{1e9*g2*g2*aim_t_node_s_per_s}}
* v(u): the column from the common mode; v(dp), v(dm): across the transistors; v(mp), v(mm): their middle. As nodes,
* these keep the derivatives short that ngspice writes for a B-source: a third of the CPU.
Eu u u0 bit 0 1
Vu u0 0 {{-aim_v_common_v}}
Edp dp 0 bit np 1
Edm dm 0 bit nm 1
Emp mp u dp 0 -0.5
Emm mm u dm 0 -0.5
Bplus bit np I=v(dp)*(1 - v(mp)*(aim_k_mid_per_v + aim_k_mid_per_v2*v(mp)))/(r + r*aim_k_drain_per_v2*v(dp)*v(dp))
Bminus bit nm I=v(dm)*(1 - v(mm)*(aim_k_mid_per_v + aim_k_mid_per_v2*v(mm)))/(r + r*aim_k_drain_per_v2*v(dm)*v(dm))
* Tunnelling through both gates, into the column.
Bgate 0 bit I=gate*exp(-v(u)/aim_v_gate_v)
.ends aim_row
"""

CLAMP = """\
* The column's end held at the common mode plus an offset [V], whatever its current.
*   iline   the column's current flows out of it: end it in a voltage source of 0 V
.subckt aim_clamp bl iline params: offset=0
Vcol end bl 0
Vcm end 0 {aim_v_common_v + offset}
Fline 0 iline Vcol 1
.ends aim_clamp
"""


def tied_column_library(*, w_ref_um: float, w_select_um: float) -> str:
    """Subcircuits ``aim_source``, ``aim_row`` and ``aim_clamp``; their numbers are the parameters aim_... of the netlist."""
    row = ROW.format(w=f"{w_select_um:.9g}", w_ref=f"{w_ref_um:.9g}")
    return "\n".join([GAIN, SOURCE.format(ramp=f"{RAMP_S:g}"), row, CLAMP])


def _name(code: int) -> str:
    """A code within a node's name, where a minus sign would be an operator."""
    return f"{'n' if code < 0 else 'p'}{abs(code)}"


def _lines(codes: np.ndarray) -> str:
    return " ".join(f"{line}_{_name(code)}" for code in np.unique(codes) for line in ("plus", "minus", "dplus", "dminus"))


def tied_column_subcircuit(
    g_plus_s: np.ndarray, g_minus_s: np.ndarray, codes: np.ndarray, *, w_select_um: float, wire_scale: float
) -> str:
    """``.subckt aim_column bl plus.. minus.. dplus.. dminus..``: rows (rows,), the first one at the far end, as text.

    Its source lines' pins are those of the distinct codes in rising order; rows of equal code share them.
    """
    rows = len(codes)
    lines = continued([f".subckt aim_column bl {_lines(codes)}"])
    for i, (plus, minus, code) in enumerate(zip(g_plus_s, g_minus_s, codes, strict=True)):
        following, share = ("bl", "0.5") if i == rows - 1 else (f"b{i + 1}", "1")
        lines.append(
            f"Xrow{i} b{i} {following} {_lines(np.array([code]))} aim_row "
            f"gp={plus * 1e6:.9g}u gm={minus * 1e6:.9g}u w={w_select_um:.9g} wire={share} scale={wire_scale:.9g}"
        )
    return "\n".join([*lines, ".ends aim_column", ""])


def sources(codes: np.ndarray, start_s: float) -> str:
    """An ``aim_source`` for every distinct code."""
    return "".join(
        f"Xsource_{_name(code)} {_lines(np.array([code]))} aim_source code={code} start={start_s:.9g}\n"
        for code in np.unique(codes)
    )


def tied_column_instance(codes: np.ndarray) -> str:
    """The line that places ``aim_column`` between its source lines and a read-out on node ``bl``."""
    return "\n".join(continued([f"Xcolumn bl {_lines(codes)} aim_column"])) + "\n"
