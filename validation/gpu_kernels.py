"""What a GPU starts and moves for a product, and what its kernels take: ``python -m aimcard.validation.gpu_kernels``.

No GPU is needed, and no time is measured. Operations are counted on torch's meta device, views and allocations left out; bytes
are those of all numbers that an operation is given and gives back. Kernels are compiled by Triton for an architecture, and the
machine code tells what registers they take and whether any are spilled to memory.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aimcard.data.shipped import find_card
from aimcard.models.card_text import rows_of_text
from aimcard.models.console import Arguments, run_module
from aimcard.models.errors import InputError
from aimcard.models.fast import FastTile, fused
from aimcard.models.fast.columns import Settings, group
from aimcard.models.fast.product import Columns
from aimcard.models.fast.tile import FAST
from aimcard.models.tile import TileModel
from aimcard.validation.speed import READS, draw

#: Operations that start nothing on a GPU.
FREE = frozenset(
    ["alias", "as_strided", "detach", "empty", "empty_like", "expand", "lift_fresh", "new_empty", "permute", "select", "slice",
     "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view"]
)  # fmt: skip
ARCHITECTURES = (80, 90)
TYPES = {torch.float32: "*fp32", torch.int32: "*i32", torch.bfloat16: "*bf16"}


@dataclass(frozen=True)
class Launch:
    """A kernel and what it is started with."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, int]

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.kernel.__name__


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Launches of fused kernels meanwhile; none is run."""
    found: list[Launch] = []
    real = fused.launch
    fused.launch = lambda kernel, grid, *arguments, **options: found.append(Launch(kernel, arguments, options))
    try:
        yield found
    finally:
        fused.launch = real


def _bytes(tensors: list[Any]) -> int:
    """Of the tensors among these, numbers that are repeated counted once."""
    sizes = 0
    for t in tensors:
        if isinstance(t, Tensor):
            numbers = 1
            for size, stride in zip(t.shape, t.stride(), strict=True):
                numbers *= size if stride else 1
            sizes += numbers * t.element_size()
    return sizes


class Work(TorchDispatchMode):
    """Counts operations that torch would start, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._schema.name.removeprefix("aten::") not in FREE:
            self.launches += 1
            self.bytes += _bytes(tree_leaves((args, kwargs, out)))
        return out


def on_meta(model: TileModel, read: str, lines: int, rows: int, *, kernels: bool) -> tuple[FastTile, Columns, Tensor]:
    """Columns of normal weights as they are on a GPU, their tensors on torch's meta device; and the conductances."""
    g = draw("normal", "gaussian", lines, rows, 1)[0].float()
    tile, counts = FastTile(model, READS[read]), read == "phase"
    made = group(tile.circuit, g, FAST[counts], counts=counts, plain=True)
    meta = torch.device("meta")
    plans = [replace(p, half=True, fused=fused.Fused(p.ref, p.squares, meta, half=True) if kernels else None) for p in made.plans]
    order, back = (None if q is None else q.to(meta) for q in (made.order, made.back))
    return tile, replace(made, plans=plans, order=order, back=back), g.to(meta)


def count(model: TileModel, read: str, batch: int, *, kernels: bool, lines: int = 512, rows: int = 512) -> list[tuple[int, int]]:
    """Launches and bytes of the answers of one batch, and of their gradients to weights and codes; the weights are prepared."""
    tile, columns, g = on_meta(model, read, lines, rows, kernels=kernels)
    codes, found = torch.empty(batch, rows, device="meta"), []
    with recorded():
        columns.answers(tile.circuit, g, torch.empty(1, rows, device="meta"))
    g.requires_grad_()
    codes.requires_grad_()
    out = torch.empty(0)
    for step in ("answers", "gradients"):
        with recorded() as launches, Work() as work:
            if step == "answers":
                out = columns.answers(tile.circuit, g, codes)
            else:
                torch.autograd.grad(out, (g, codes), torch.empty_like(out))
        bytes_ = sum(_bytes(tree_leaves(launch.arguments)) for launch in launches)
        found.append((work.launches + len(launches), work.bytes + bytes_))
    return found


def launches_of(
    model: TileModel, read: str, batch: int, lines: int = 512, rows: int = 512, settings: Settings | None = None
) -> list[Launch]:
    """What answers and gradients of a batch start, on the CPU; settings: those of ``accuracy="fast"`` unless given."""
    g, x = (q.float().requires_grad_() for q in draw("normal", "gaussian", lines, rows, batch))
    tile, counts = FastTile(model, READS[read]), read == "phase"
    made = group(tile.circuit, g.detach(), settings or FAST[counts], counts=counts, plain=True)
    for plan in made.plans:
        plan.half, plan.fused = True, fused.Fused(plan.ref, plan.squares, g.device, half=True)
    with recorded() as launches:
        out = made.answers(tile.circuit, g, x)
        torch.autograd.grad(out.sum(), (g, x))
    return launches


def kernels_of(model: TileModel, read: str, batch: int) -> list[Launch]:
    """The first of each kernel, and kind of it, among ``launches_of`` 512 x 512."""
    found: dict[Any, Launch] = {}
    for launch in launches_of(model, read, batch):
        found.setdefault((launch.name, *(q for q in launch.arguments if isinstance(q, bool))), launch)
    return list(found.values())


def _kind(value: Any) -> Any:
    """Type of an argument as Triton compiles it: a whole number of 1 is a constant."""
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    if isinstance(value, tuple):
        return type(value)(*map(_kind, value))
    return "fp32" if isinstance(value, float) else "constexpr" if value == 1 else "i32"


def _places(value: Any, path: tuple[int, ...]) -> list[tuple[tuple[int, ...], Any]]:
    """Numbers and tensors of an argument, with where they are."""
    if isinstance(value, tuple):
        return [found for k, part in enumerate(value) for found in _places(part, (*path, k))]
    return [(path, value)]


def resources(launch: Launch, architecture: int) -> tuple[int, int]:
    """Registers of a thread, and bytes of memory to which it spills, of a kernel compiled for a compute capability (90: 9.0)."""
    import triton  # type: ignore[import-not-found]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found]
    from triton.compiler import ASTSource  # type: ignore[import-not-found]

    kernel = launch.kernel
    constants: dict[Any, Any] = {}
    signature: dict[str, Any] = {}
    aligned: dict[tuple[int, ...], list[list[Any]]] = {}
    for k, (name, value, parameter) in enumerate(zip(kernel.arg_names, launch.arguments, kernel.params, strict=True)):
        if parameter.is_constexpr:
            constants[k,], signature[name] = value, "constexpr"
            continue
        signature[name] = _kind(value)
        for path, part in _places(value, (k,)):
            if isinstance(part, int) and part == 1:
                constants[path] = part
            elif isinstance(part, Tensor) or (isinstance(part, int) and part % 16 == 0):
                aligned[path] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    binary = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=launch.options).asm["cubin"]
    tool = Path(triton.__file__ or "").parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(binary)
        text = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(n) for n in re.findall(r"\b(?:REG|STACK|LOCAL):(\d+)", text))
    return registers, stack + local


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = Arguments(prog="python -m aimcard.validation.gpu_kernels", description=__doc__)
    parser.add_argument("--card", default="freepdk45_gated", help="file or name of a card")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512])
    chosen = parser.parse_args(arguments)
    model = TileModel(find_card(chosen.card))
    try:
        import triton  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("triton: expected to be installed; it is not; pip install 'aimcard[cuda]'") from None
    rows: list[tuple[str, ...]] = [("512 x 512, float32", "batch", "launches", "MB", "launches, gradients", "MB, gradients")]
    for read in READS:
        for batch in chosen.batch:
            for kernels in (False, True):
                numbers = count(model, read, batch, kernels=kernels)
                shown = [text for n, size in numbers for text in (str(n), f"{size / 1e6:.0f}")]
                rows.append((f"{read}, {'fused' if kernels else 'plain torch'}", str(batch), *shown))
    print("\n".join(rows_of_text(rows)))
    rows = [(f"Triton {triton.__version__}", *(f"sm_{a} {what}" for a in ARCHITECTURES for what in ("registers", "spilled")))]
    for read in READS:
        for launch in kernels_of(model, read, 512):
            found = [str(n) for a in ARCHITECTURES for n in resources(launch, a)]
            rows.append((f"{read}, {launch.name}", *found))
    print("\n".join(rows_of_text(rows)))


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
