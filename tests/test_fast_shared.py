"""A batch of small tiles about common mean columns, against the slow twin of each."""

import pytest
import torch

from aimcard.data.shipped import find_card
from aimcard.models.fast import Effects, FastTile
from aimcard.models.fast.exact import solve
from aimcard.models.fast.shared import SharedTile


def tiles(rows: int, lines: int) -> torch.Tensor:
    """Pairs of three tiles; the second has rows of other sizes, so that its lines conduct less."""
    rng = torch.Generator().manual_seed(1)
    w = torch.randn(3, lines, rows, dtype=torch.float64, generator=rng)
    w[1] *= 2 * torch.rand(rows, dtype=torch.float64, generator=rng)
    w = w / w.abs().amax(-1, keepdim=True)
    return 1e-7 + 24.9e-6 * torch.cat([w.clamp(min=0), -w.clamp(max=0)], 1)


@pytest.mark.parametrize("counts", [False, True])
def test_it_is_as_good_as_a_tile_of_its_own(counts):
    g, rng = tiles(96, 8), torch.Generator().manual_seed(2)
    x = (torch.randn(3, 9, 96, dtype=torch.float64, generator=rng) * 42).clamp(0, 127).round()
    tile = FastTile(find_card("freepdk45_gated"), Effects() if counts else Effects(regulator=False))
    shared = SharedTile(tile, 1e-7, 25e-6)
    with torch.no_grad():
        answer = shared.phase if counts else shared.charge
        found = answer(g.float(), x.float()).double()
        twin = torch.stack([solve(tile.circuit, a, b, counts=counts) for a, b in zip(g, x, strict=True)])
        error = (found - twin).square().mean(1) / twin.var(1, correction=0)
        assert float(error.median()) < 1e-5
        assert float(error.max()) < 5e-5
        # What came before leaves nothing behind, and every tile has its own vectors.
        answer(g.flip(0)[:1].float(), x[:1].float())
        assert torch.equal(answer(g.float(), x.float()).double(), found)
        torch.testing.assert_close(answer(g.float(), x.flip(1).float()).double(), found.flip(1), rtol=1e-5, atol=0)


def test_lines_of_very_different_conductance():
    g, x = tiles(40, 4).float(), torch.full((3, 2, 40), 20.0)
    g[0, 0], g[2] = 1e-7, 1e-7 + 0.05 * (g[2] - 1e-7)
    tile = FastTile(find_card("freepdk45_gated"), Effects(regulator=False))
    with torch.no_grad():
        found = SharedTile(tile, 1e-7, 25e-6).charge(g, x)
        twin = torch.stack([solve(tile.circuit, a, b, counts=False) for a, b in zip(g, x, strict=True)])
    torch.testing.assert_close(found, twin, rtol=0, atol=1e-3 * float(twin.max()))
