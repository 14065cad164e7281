"""FreePDK45: the predictive 45 nm BSIM4 models of NC State, from the PyPI package c4m-pdk-freepdk45."""

from aimcard.netlists.technology import Technology, register

FREEPDK45 = register(
    Technology(
        name="freepdk45",
        package="c4m-pdk-freepdk45",
        vdd_v=1.0,
        libraries={
            "nom": "freepdk45_nom.spi",
            "ff": "freepdk45_ff.spi",
            "ss": "freepdk45_ss.spi",
        },
        models={
            ("nmos", "svt"): "NMOS_VTG",
            ("nmos", "lvt"): "NMOS_VTL",
            ("nmos", "hvt"): "NMOS_VTH",
            ("pmos", "svt"): "PMOS_VTG",
            ("pmos", "lvt"): "PMOS_VTL",
            ("pmos", "hvt"): "PMOS_VTH",
        },
        l_min_um=0.05,
        w_min_um=0.09,
        # Contacted source/drain length of the FreePDK45 rules (contact 65 nm + spacing 35 nm + 5 nm).
        diffusion_um=0.105,
        temperature_range_c=(-40.0, 125.0),
        # The model cards switch on a substrate and a gate resistance network per transistor. It moves the
        # charge of a 512-row line by 1 ppm and costs a quarter of the run time.
        instance={"rbodymod": 0, "rgatemod": 0},
        # Assumed: the models carry no mismatch. 1.8 to 2.5 mV·µm is the order of magnitude at this node.
        a_vt_v_um=2.0e-3,
    )
)
