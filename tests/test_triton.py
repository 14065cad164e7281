"""The fused kernels without a GPU: run by Triton's interpreter; compiled for two architectures, the machine code looked at."""

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from aimcard.data import shipped_card
from aimcard.models.fast import Effects, FastTile, fused
from aimcard.models.fast.columns import Settings, group
from aimcard.models.fast.compiled import SlowerPathWarning
from aimcard.models.fast.product import Columns
from aimcard.models.tile import TileModel

needs_triton = pytest.mark.skipif(
    not sys.platform.startswith("linux") and importlib.util.find_spec("triton") is None,
    reason="Triton has wheels for Linux alone",
)
MODEL = TileModel.read(shipped_card())
CUDA = torch.device("cuda")
TYPES = {torch.float32: "*fp32", torch.int32: "*i32", torch.bfloat16: "*bf16"}


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


def specialised(value):
    """Type of an argument as Triton compiles it: whole numbers of 1 as constants."""
    if isinstance(value, torch.Tensor):
        return TYPES[value.dtype]
    if isinstance(value, tuple):
        return type(value)(*map(specialised, value))
    return "fp32" if isinstance(value, float) else "constexpr" if value == 1 else "i32"


def places(value, path):
    """Arguments and where they are among those of a kernel."""
    if isinstance(value, tuple):
        return [found for k, v in enumerate(value) for found in places(v, (*path, k))]
    return [(path, value)]


def launched(monkeypatch, lines, batch, rows, settings, *, counts):
    """Kernels and arguments of an answer and its gradients, none of them run."""
    found = []
    monkeypatch.setattr(fused, "launch", lambda kernel, grid, *arguments, **options: found.append((kernel, arguments, options)))
    g = torch.rand(lines, rows) * 5e-6 + 1e-7
    x = torch.zeros(batch, rows, requires_grad=True)
    tile = FastTile(MODEL, Effects(regulator=counts))
    made = group(tile.circuit, g, settings, counts=counts, plain=True)
    for plan in made.plans:
        plan.half, plan.fused = True, fused.Fused(plan.ref, plan.squares, g.device, half=True)
    out = Columns(made.plans, made.sizes, made.order, made.back).answers(tile.circuit, g.requires_grad_(), x)
    torch.autograd.grad(out.sum(), (g, x))
    return found


def resources(kernel, arguments, options, arch, folder):
    """Registers, bytes of stack and of local memory of a kernel compiled for an architecture: spilled registers go there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants, signature, aligned = {}, {}, {}
    for k, (name, value, parameter) in enumerate(zip(kernel.arg_names, arguments, kernel.params, strict=True)):
        if parameter.is_constexpr:
            constants[k,], signature[name] = value, "constexpr"
            continue
        signature[name] = specialised(value)
        for path, part in places(value, (k,)):
            if isinstance(part, int) and part == 1:
                constants[path] = part
            elif isinstance(part, torch.Tensor) or (isinstance(part, int) and part % 16 == 0):
                aligned[path] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options).asm["cubin"]
    (folder / "kernel.cubin").write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True, check=True).stdout
    return [int(re.search(rf"\b{name}:(\d+)", text)[1]) for name in ("REG", "STACK", "LOCAL")]


@needs_triton
@pytest.mark.parametrize("arch", [80, 90])
def test_compiles_without_spilling(arch, monkeypatch, tmp_path):
    """As for phases of 512 rows, batch 512."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "kept"))
    found = launched(monkeypatch, 32, 512, 512, Settings(6, 8, 6, 1.3), counts=True)
    names = [kernel.__name__ for kernel, _arguments, _options in found]
    prepared = ["sum_rows", "solve", "solve", "weigh_bins", "weigh_rows"]
    assert names == [*prepared, "take_squares", *prepared, "slope_squares"]
    for kernel, arguments, options in found:
        registers, stack, local = resources(kernel, arguments, options, arch, tmp_path)
        # Three programs of four warps find room in the 65,536 of a multiprocessor.
        assert registers <= 168, kernel.__name__
        assert (stack, local) == (0, 0), kernel.__name__


@needs_triton
def test_compiles_where_everything_is_one(monkeypatch, tmp_path):
    """Triton makes a constant of a size of one, which has no type as other sizes do."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "kept"))
    for kernel, arguments, options in launched(monkeypatch, 1, 1, 1, Settings(1, 1, 1), counts=False):
        assert resources(kernel, arguments, options, 90, tmp_path)[0] > 0, kernel.__name__


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
