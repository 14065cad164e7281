"""Every fitted number of a tied column: where its fit starts, its bounds, unit, group and meaning."""

from aimcard.calibrate.parameters import Spec

_ROWS = (
    ("r_on_ohm", 1400.0, 10, 1e6, 100, "Ohm", "cell", "triode resistance of the select transistor, reference width"),
    ("dw_um", 0.004, -0.2, 0.08, 0.01, "um", "cell", "drawn minus effective width in R_on"),
    ("k_mid_per_v", 2.5, -20, 50, 1, "1/V", "cell", "R_on goes with 1/(1 - k V), V the middle of the transistor"),
    ("k_mid_per_v2", 0.0, -500, 500, 10, "1/V^2", "cell", "R_on goes with 1/(1 - k V - k2 V^2), same V"),
    ("k_drain_per_v2", 0.0, -100, 1000, 10, "1/V^2", "cell", "rise of R_on with the square of the voltage across it"),
    ("i_gate_a", 1e-10, 0, 1e-6, 1e-10, "A", "cell", "gate current of a cell into the column, reference width"),
    ("v_gate_v", 0.16, 0.01, 50, 0.1, "V", "cell", "column voltage that divides the gate current by e"),
    ("t_start_s", 1e-12, -1e-9, 1e-9, 1e-12, "s", "pulse", "how much later than its source line a cell starts"),
    ("t_end_s", 1e-12, -1e-9, 1e-9, 1e-12, "s", "pulse", "how much later than its source line a cell ends"),
    ("t_node_s_per_s", 0.0, -1e-3, 1e-3, 1e-7, "s/S", "pulse", "what a cell's conductance adds to both"),
    ("r_row_ohm", 0.0, 0, 100, 0.01, "Ohm", "source", "source-line wire per column"),
    ("r_down_ohm", 1.0, 0, 1e4, 1, "Ohm", "source", "switch from a source line to the lower rail"),
    ("r_up_ohm", 1.0, 0, 1e4, 1, "Ohm", "source", "switch from a source line to the upper rail"),
    ("r_bit_ohm", 0.15, 0, 100, 0.01, "Ohm", "wire", "column wire per cell"),
    ("c_column_f", 2e-15, 0, 1e-12, 1e-16, "F", "wire", "capacitance of one row at the column: wire and transistors"),
    ("c_width_f", 0.0, -1e-12, 1e-12, 1e-16, "F", "wire", "what transistors of twice the reference width add to it"),
)
TIED_SPECS = {row[0]: Spec(*row) for row in _ROWS}
