"""The fused kernels without a GPU: run by Triton's interpreter; compiled for two architectures, the machine code looked at."""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from aimcard.data import shipped_card
from aimcard.models.fast import fused
from aimcard.models.fast.columns import Settings
from aimcard.models.fast.compiled import SlowerPathWarning
from aimcard.models.tile import TileModel
from aimcard.validation.gpu_kernels import launches_of, resources

needs_triton = pytest.mark.skipif(
    not sys.platform.startswith("linux") and importlib.util.find_spec("triton") is None,
    reason="Triton has wheels for Linux alone",
)
MODEL = TileModel.read(shipped_card())
CUDA = torch.device("cuda")


@needs_triton
def test_in_the_interpreter():
    """In a process of its own: Triton decides when it is imported whether it interprets."""
    file = Path(__file__).with_name("interpreted_triton.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "AIMCARD_PLAIN": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=file.parent.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@needs_triton
@pytest.mark.parametrize("arch", [80, 90])
def test_compiles_without_spilling_much(arch, monkeypatch, tmp_path):
    """As for phases of 512 rows, batch 512."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = launches_of(MODEL, "phase", 512, 32, 512, Settings(6, 8, 6, 1.3))
    prepared = ["sum_rows", "solve", "solve", "weigh_bins", "weigh_rows"]
    assert [launch.name for launch in found] == [*prepared, "take_squares", *prepared, "slope_squares"]
    for launch in found:
        registers, spilled = resources(launch, arch)
        # Three programs of four warps find room in the 65,536 of a multiprocessor. A few spilled bytes are the compiler's choice.
        assert registers <= 168, launch.name
        assert spilled <= 32, launch.name


@needs_triton
def test_compiles_where_everything_is_one(monkeypatch, tmp_path):
    """Triton makes a constant of a size of one, which has no type as other sizes do."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for launch in launches_of(MODEL, "charge", 1, 1, 1, Settings(1, 1, 1)):
        assert resources(launch, 90)[0] > 0, launch.name


class TestDispatch:
    def test_what_gets_the_kernels(self, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
        assert fused.available(CUDA, torch.float32)
        assert not fused.available(CUDA, torch.float64)
        assert not fused.available(torch.device("cpu"), torch.float32)
        assert not fused.available(torch.device("meta"), torch.float32)
        monkeypatch.setenv("AIMCARD_PLAIN", "1")
        assert not fused.available(CUDA, torch.float32)

    def test_says_once_that_triton_is_missing(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(fused, "_said", [])
        with pytest.warns(SlowerPathWarning, match="triton is not installed"):
            assert not fused.available(CUDA, torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not fused.available(CUDA, torch.float32)
            assert not fused.available(torch.device("cpu"), torch.float32)
