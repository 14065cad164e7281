"""Other simulators of analog tiles beside ours: the same matrix and the same inputs, outputs and seconds.

``peers(weight)`` gives a `Peer` for each simulator and setting that runs here. They come from PyPI and ask for
other torch versions than ours, so: ``pip install --no-deps aihwkit aihwkit-lightning`` (docs/exports.md).
``python -m aimcard.validation.peers`` prints their ratios to torch's own matmul, timed in the same process.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aimcard.models.console import Arguments, run_module
from aimcard.models.errors import InputError
from aimcard.models.pcm import G_MAX_S

#: Wire and conductance at which all peers with IR-drop run: 0.15 Ω a cell, 25 µS.
WIRE_OHM, G_MAX_US = 0.15, 1e6 * G_MAX_S


@dataclass(frozen=True)
class Timed:
    """Outputs (batch, columns) of the last run, and the fastest run's wall-clock seconds."""

    output: Tensor
    seconds: float


@dataclass(frozen=True)
class Peer:
    """A simulator in one setting, its layer built: only products are timed.

    chunk: vectors that it takes at a time, None for all of them; some need gigabytes for more.
    circuit: what of the circuit it has.
    """

    name: str
    version: str
    circuit: str
    product: Callable[[Tensor], Tensor]
    chunk: int | None = None

    def run(self, inputs: Tensor, repeats: int = 1) -> Timed:
        """Product of ``inputs`` (batch, rows) with the peer's matrix, the fastest of ``repeats``."""
        with _quiet():
            return timed(lambda: self._whole(inputs), repeats)

    def _whole(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.product(part) for part in inputs.split(self.chunk or len(inputs))])


def timed(product: Callable[[], Tensor], repeats: int = 1) -> Timed:
    """Run ``product`` ``repeats`` times; InputError if that is less than once."""
    if repeats < 1:
        raise InputError(f"repeats: expected 1 or more; got {repeats}")
    fastest, output = float("inf"), torch.empty(0)
    for _ in range(repeats):
        begun = time.perf_counter()
        output = product()
        fastest = min(fastest, time.perf_counter() - begun)
    return Timed(output.detach(), fastest)


def matmul(weight: Tensor, inputs: Tensor, repeats: int = 20) -> Timed:
    """torch's own product, what the peers' seconds are divided by."""
    _ = inputs @ weight.T
    return timed(lambda: inputs @ weight.T, repeats)


def peers(weight: Tensor) -> tuple[list[Peer], dict[str, str]]:
    """The peers that run here, for a float32 ``weight`` (columns, rows), as `nn.Linear` has it; and why others do not.

    aihwkit's time-dependent IR-drop takes an even number of columns and at most 512 rows only. Raises InputError for
    another shape or type.
    """
    if weight.ndim != 2 or weight.dtype != torch.float32:
        raise InputError(f"weight: expected float32 (columns, rows); got {weight.dtype} {tuple(weight.shape)}")
    found: list[Peer] = []
    absent: dict[str, str] = {}
    for package, builders in (("aihwkit", _aihwkit), ("aihwkit-lightning", _lightning)):
        if not installed(package):
            absent[package] = f"not installed: pip install --no-deps {package}"
            continue
        version = importlib.metadata.version(package)
        for name, circuit, chunk, build in builders(weight):
            label = f"{package}, {name}"
            try:
                with _quiet():
                    product = build()
                    product(torch.zeros(1, weight.shape[1]) + 1.0)
            except (RuntimeError, TypeError) as error:
                # A wheel's compiled tile takes tensors of the torch that it was built with.
                why = str(error).splitlines()[0]
                absent[label] = f"does not run with torch {torch.__version__} ({why}): build it from source against this torch"
            else:
                found.append(Peer(label, version, circuit, product, chunk))
    return found, absent


def installed(package: str) -> bool:
    """Whether a package can be imported; looked up, not imported."""
    return importlib.util.find_spec(package.replace("-", "_")) is not None


#: Name, what of the circuit it has, vectors at a time, and what makes its product.
Builder = tuple[str, str, int | None, Callable[[], Callable[[Tensor], Tensor]]]


def _aihwkit(weight: Tensor) -> Iterator[Builder]:
    with _quiet():
        configs = importlib.import_module("aihwkit.simulator.configs")
        enums = importlib.import_module("aihwkit.simulator.parameters.enums")
        layers = importlib.import_module("aihwkit.nn")
        inference = importlib.import_module("aihwkit.inference")

    def layer(config: Any) -> Callable[[], Callable[[Tensor], Tensor]]:
        config.mapping.max_input_size = config.mapping.max_output_size = 512
        return lambda: _without_gradient(layers.AnalogLinear.from_digital(_linear(weight), config).eval())

    periphery = "none: DAC, ADC, output noise"
    yield "inference tile in torch", periphery, None, layer(configs.TorchInferenceRPUConfig())
    yield "inference tile in C++", periphery, None, layer(configs.InferenceRPUConfig())
    static = configs.InferenceRPUConfig()
    static.forward.ir_drop = 1.0
    static.forward.ir_drop_g_ratio = 1 / (WIRE_OHM * G_MAX_US * 1e-6)
    yield "static IR-drop in C++", "one formula a column", None, layer(static)
    for name, mode, chunk in (("split", "SPLIT_MODE", 8), ("conventional", "ONE_PASS", 2)):
        config = configs.TorchInferenceRPUConfigIRDropT()
        config.forward.mv_type = getattr(enums.AnalogMVType, mode)
        config.forward.ir_drop_rs = WIRE_OHM
        config.forward.out_noise = 0.0
        config.forward.bound_management = enums.BoundManagementType.NONE
        converter = inference.SinglePairConductanceConverter(g_max=G_MAX_US)
        config.noise_model = inference.PCMLikeNoiseModel(g_converter=converter)
        yield f"IR-drop in time, {name}", "tied ladder of 8 segments, charge counted", chunk, layer(config)


def _lightning(weight: Tensor) -> Iterator[Builder]:
    with _quiet():
        configs = importlib.import_module("aihwkit_lightning.simulator.configs")
        enums = importlib.import_module("aihwkit_lightning.simulator.parameters")
        layers = importlib.import_module("aihwkit_lightning.nn")
    config = configs.TorchInferenceRPUConfig()
    config.mapping.max_input_size = 512
    config.forward.inp_res = config.forward.out_res = 254
    config.forward.out_bound = 12.0
    config.forward.out_noise = 0.04
    config.pre_post.input_range.enable = True
    config.modifier.noise_type = enums.WeightNoiseInjectionType.ADD_NORMAL
    config.modifier.std_dev = 0.05

    def layer(training: bool) -> nn.Module:
        return layers.AnalogLinear.from_digital(_linear(weight), config).train(training)

    periphery = "none: DAC, ADC, noise"
    yield "evaluation", periphery, None, lambda: _without_gradient(layer(False))
    yield "training with noise", periphery, None, lambda: layer(True)


def _linear(weight: Tensor) -> nn.Linear:
    columns, rows = weight.shape
    linear = nn.Linear(rows, columns, bias=False)
    with torch.no_grad():
        linear.weight.copy_(weight)
    return linear


def _without_gradient(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    def product(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return layer(inputs)

    return product


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # aihwkit-lightning prints on import that there is no Triton; both use what torch and python deprecate.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main(arguments: list[str]) -> None:
    """Print each peer's ratio to matmul on a 512 × 512 matrix, and how far its outputs are from the product's."""
    parser = Arguments(description=main.__doc__)
    parser.add_argument("--batch", type=int, default=8, help="vectors in the batch (8)")
    parser.add_argument("--seed", type=int, default=1, help="seed of matrix, inputs and noise (1)")
    given = parser.parse_args(arguments)
    torch.manual_seed(given.seed)
    weight, inputs = 0.1 * torch.randn(512, 512), torch.randn(given.batch, 512)
    plain = matmul(weight, inputs, repeats=200)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, batch {given.batch}: matmul {plain.seconds * 1e6:.0f} us")
    found, absent = peers(weight)
    for peer in found:
        costly = peer.chunk is not None
        if not costly:
            peer.run(inputs)
        result = peer.run(inputs, 1 if costly else 20)
        error = float((result.output - plain.output).std() / plain.output.std())
        ratio = result.seconds / plain.seconds
        print(f"{peer.name} {peer.version}: {ratio:.3g} x matmul, {result.seconds:.3g} s; rms error {error:.3f}")
    for name, why in absent.items():
        print(f"{name}: {why}")


if __name__ == "__main__":
    sys.exit(run_module(main, sys.argv[1:]))
