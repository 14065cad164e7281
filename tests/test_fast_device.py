"""The plain path's steps keep to one device, where no GPU is: run on the meta device, every operation watched.

What has to be read back (the groups of the lines, the reference column) is made on the CPU first, as on a GPU; everything from
conductances and codes to answers and gradients then runs on tensors of another device, which no CPU tensor may meet.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aimcard.data import shipped_card
from aimcard.models.fast import Effects, FastTile
from aimcard.models.fast.columns import group
from aimcard.models.fast.tile import FAST
from aimcard.models.tile import TileModel

#: What moves tensors between devices or types on purpose.
MOVES = ("_to_copy", "copy_")
PRODUCTS = ("mm", "addmm", "bmm", "addmv", "mv", "dot")


class Watch(TorchDispatchMode):
    """Refuses operations on two devices, as CUDA does (a number held on the CPU is none), and products of two types."""

    def __init__(self):
        super().__init__()
        self.seen, self.half = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        tensors = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
        if name not in MOVES:
            devices = {t.device.type for t in tensors if t.ndim}
            assert len(devices) < 2, f"{name} on {devices}"
        if name in PRODUCTS:
            assert len({t.dtype for t in tensors}) == 1, f"{name} of {[t.dtype for t in tensors]}"
            self.half += tensors[-1].dtype == torch.bfloat16
        self.seen.update(t.device.type for t in tensors)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("counts", [False, True], ids=["charge", "phase"])
def test_answers_and_gradients_stay_where_the_weights_are(counts, half):
    rng = torch.Generator().manual_seed(0)
    # Lines of very different totals: groups about one mean column, and a second one.
    g = torch.rand(24, 40, generator=rng) * torch.linspace(1e-6, 8e-6, 24)[:, None]
    tile = FastTile(TileModel.read(shipped_card()), Effects() if counts else Effects(regulator=False), plain=True)
    made = group(tile.circuit, g, FAST[counts], counts=counts, plain=True)
    assert made.order is not None
    assert made.back is not None
    assert len(made.plans) > 1
    assert any(len(p.ref.scales) > 1 for p in made.plans)
    elsewhere = replace(
        made, order=made.order.to("meta"), back=made.back.to("meta"), plans=[replace(p, half=half) for p in made.plans]
    )
    conductance_s = g.to("meta").requires_grad_()
    codes = torch.zeros(5, 40, device="meta", requires_grad=True)
    with Watch() as watch:
        out = elsewhere.answers(tile.circuit, conductance_s, codes)
        found = torch.autograd.grad(out.sum(), (conductance_s, codes))
    assert "meta" in watch.seen
    assert (watch.half > 0) == half
    for value, shape in ((out, (5, 24)), (found[0], (24, 40)), (found[1], (5, 40))):
        assert value.device.type == "meta"
        assert value.dtype == torch.float32
        assert value.shape == shape


@pytest.mark.parametrize("counts", [False, True], ids=["charge", "phase"])
def test_what_a_modes_phases_add_stays_there_too(counts):
    rng = torch.Generator().manual_seed(0)
    g = torch.rand(24, 40, generator=rng) * torch.linspace(1e-6, 8e-6, 24)[:, None]
    x = torch.randint(0, 128, (5, 40), generator=rng).float()
    effects = Effects() if counts else Effects(regulator=False)
    tile = FastTile(TileModel.read(shipped_card()), effects, plain=True, mode="split")
    (tile.phase if counts else tile.charge)(g, x)
    assert tile.phases is not None
    extras = tile.phases.extras[counts]
    columns = [t.columns(g, x, counts) for t in tile.phases.tiles]
    elsewhere = [replace(c, order=move(c.order), back=move(c.back)) for c in columns]
    assert elsewhere[0].order is not None
    # A tile that is prepared elsewhere has these there.
    extras.table = extras.table.to("meta")
    for t in extras.tables:
        t.slots, t.bins = t.slots and t.slots.to("meta"), [b.to("meta") for b in t.bins]
    conductance_s, codes = g.to("meta").requires_grad_(), x.to("meta")
    with Watch() as watch:
        more = extras.answers(elsewhere, conductance_s.detach(), codes, [torch.zeros(5, 24, device="meta")] * 2)
        slopes = extras.slopes(elsewhere, conductance_s, codes)
        (found,) = torch.autograd.grad(sum(slopes).sum(), conductance_s)
    assert "meta" in watch.seen
    assert [(m.device.type, m.shape) for m in more] == [("meta", (5, 24))] * 2
    assert (found.device.type, found.shape) == ("meta", (24, 40))


def move(places):
    return None if places is None else places.to("meta")


def test_the_watch_sees_what_cuda_would_refuse():
    here, there = torch.ones(3, 3), torch.ones(3, 3, device="meta")
    with Watch():
        assert (there * torch.tensor(2.0)).device.type == "meta"
        with pytest.raises(AssertionError, match="mm on"):
            torch.mm(there, here)
        with pytest.raises(AssertionError, match="index_select on"):
            there.index_select(0, torch.zeros(2, dtype=torch.int64))
        with pytest.raises(AssertionError, match="mm of"):
            torch.mm(there, there.bfloat16())
