"""From rows to bins and back, in plain torch: sums of what conducts in each bin, and the rows' weights from the bins'.

A pulse is full in the bins before the one in which it ends, so a row's weight is the sum up to there, and a parabola inside it:
two steps a row, whatever the number of bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aimcard.models.fast.reference import Reference


@dataclass(frozen=True)
class BinSums:
    """Sums over the rows of each segment, (segments, batch, bins): conductance of the reference column, its centroid in cells
    from the segment's near end, and number of conducting cells; ramp, n_ramp: of f² − f. started (segments, batch), on (batch,
    rows): pulses that there are. full (batch, rows): bins that a pulse lasts."""

    conduct: Tensor
    centre: Tensor
    n: Tensor
    ramp: Tensor
    n_ramp: Tensor
    started: Tensor
    on: Tensor
    full: Tensor

    @classmethod
    def of(cls, ref: Reference, x: Tensor) -> BinSums:
        """Of codes (batch, rows)."""
        edges, width, g = ref.grid.edges, ref.grid.width, ref.g
        size = len(ref.lengths)
        f = ((x[:, None, :] - edges[:-1, None]) / width[:, None]).clamp(0.0, 1.0)
        full = f.sum(1)
        member = torch.nn.functional.one_hot(ref.owner, size).to(x)
        kinds = torch.cat([member * g[:, None], member * (g * ref.distance)[:, None], member], -1)
        conduct, moment, n = (q.permute(2, 0, 1).contiguous() for q in (f @ kinds).split(size, -1))
        ramped = (f * f - f) @ torch.cat([member * g[:, None], member], -1)
        ramp, n_ramp = (q.permute(2, 0, 1).contiguous() for q in ramped.split(size, -1))
        centre = torch.where(conduct > 0, moment / conduct.clamp(min=1e-30), 0.5 * ref.lengths[:, None, None])
        on = (x > 0).to(x)
        return cls(conduct, centre, n, ramp, n_ramp, (on @ member).T, on, full)


@dataclass(frozen=True)
class Rows:
    """Where each pulse of a batch ends: bin (batch, rows), its share t of that bin and t² − t, and the place of (segment, vector)
    in a table of them, flat."""

    full: Tensor
    bin: Tensor
    t: Tensor
    h: Tensor
    place: Tensor
    distance: Tensor
    slope: Tensor

    @classmethod
    def of(cls, ref: Reference, at: BinSums, x: Tensor) -> Rows:
        """Of codes (batch, rows)."""
        width = ref.grid.width
        last = at.full.detach().floor().clamp(max=len(width) - 1)
        t = at.full - last
        batch = torch.arange(len(x), device=x.device)
        place = ref.owner[None] * len(x) + batch[:, None]
        which = last.to(torch.int64)
        return cls(at.full, which, t, t * t - t, place, ref.distance, 1 / width)

    def _at(self, planes: Tensor, which: Tensor | None) -> Tensor:
        """Numbers of each row from planes (kinds, segments, batch, bins), in bin ``which``, (kinds, batch, rows)."""
        bins = planes.shape[-1]
        place = self.place if which is None else self.place * bins + which
        return planes.flatten(1).index_select(1, place.flatten()).unflatten(1, place.shape)

    def weights(self, by_f: Tensor, by_h: Tensor, by_place: Tensor, *, rates: bool) -> tuple[Tensor, Tensor | None]:
        """Σ over the bins of f·(by_f + distance·by_place) + (f² − f)·by_h, (batch, rows), and its derivative to the code per LSB,
        from (segments, batch, bins)."""
        before = [torch.cumsum(q, -1) - q for q in (by_f, by_place)]
        sum_f, sum_place, f, place, h = self._at(torch.stack([*before, by_f, by_place, by_h]), self.bin)
        f, sum_f = torch.addcmul(f, self.distance, place), torch.addcmul(sum_f, self.distance, sum_place)
        y = torch.addcmul(torch.addcmul(sum_f, self.t, f), self.h, h)
        return y, torch.addcmul(f, 2 * self.t - 1, h) * self.slope[self.bin] if rates else None

    def squares(self, by_f: Tensor, by_h: Tensor, scale: Tensor, spans: list[tuple[int, int]], *,
                rates: bool) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The same without places for each span of bins, (spans, batch, rows), by ``scale`` (spans, batch); one derivative, of
        the span in which the code lies."""
        found = []
        for (a, b), by in zip(spans, scale, strict=True):
            f, h = (q[..., a:b] * by[:, None] for q in (by_f, by_h))
            full = (self.full - a).clamp(0.0, b - a)
            if b - a == 1:
                zf, zh = self._at(torch.stack([f, h]), None)
                found.append(torch.addcmul(full * zf, full * full - full, zh))
                continue
            which = (self.bin - a).clamp(0, b - a - 1)
            before, zf, zh = self._at(torch.stack([torch.cumsum(f, -1) - f, f, h]), which)
            t = full - which
            found.append(torch.addcmul(torch.addcmul(before, t, zf), t * t - t, zh))
        if not rates:
            return torch.stack(found), None
        span = torch.tensor([k for k, (a, b) in enumerate(spans) for _ in range(a, b)], device=scale.device)
        of_bin = scale.T.index_select(1, span)
        zf, zh = self._at(torch.stack([by_f * of_bin, by_h * of_bin]), self.bin)
        return torch.stack(found), torch.addcmul(zf, 2 * self.t - 1, zh) * self.slope[self.bin]
