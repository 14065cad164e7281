"""Sixteen float32 numbers as one value in numba: the same arithmetic on sixteen input vectors, as vector instructions.

The compiler finds no vector instructions in loops over a dozen Gauss points; with a type of their own they are said outright.
On a processor with narrower registers LLVM splits them. ``load`` and ``store`` take a contiguous float32 array and the index
of the first number; ``fill`` repeats one number; + − * / work lane by lane, with each other and with a float32.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model, type_callable

from aimcard.models.fast.jit import LANES

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
# Numba puts the typing context before the arguments itself: callers leave it out.
intrinsic = cast(Callable[[Callable[..., Any]], Callable[..., Any]], numba_intrinsic)


class Lanes(types.Type):
    """Numba's type of such a value."""

    def __init__(self) -> None:
        super().__init__(name="Lanes16")


lanes_type = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _repeat(builder, number):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), mask)


def _register(symbol, method: str) -> None:
    @type_callable(symbol)
    def type_of(context):
        def typer(a, b):
            both = {a, b}
            if lanes_type in both and both <= {lanes_type, types.float32}:
                return lanes_type
            return None

        return typer

    def lower(context, builder, sig, args):
        a, b = (v if t == lanes_type else _repeat(builder, v) for v, t in zip(args, sig.args, strict=True))
        return getattr(builder, method)(a, b, flags=("fast",))

    for pair in ((lanes_type, lanes_type), (lanes_type, types.float32), (types.float32, lanes_type)):
        lower_builtin(symbol, *pair)(lower)


for _symbol, _method in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _register(_symbol, _method)


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    start = builder.gep(data, [index])
    return builder.bitcast(start, _VECTOR.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """Sixteen numbers of a float32 array from ``index`` on."""

    def codegen(context, builder, sig, args):
        found = builder.load(_address(context, builder, sig.args[0], *args))
        found.align = 4
        return found

    return lanes_type(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Write sixteen numbers to a float32 array from ``index`` on."""

    def codegen(context, builder, sig, args):
        done = builder.store(args[2], _address(context, builder, sig.args[0], args[0], args[1]))
        done.align = 4
        return context.get_dummy_value()

    return types.none(array, types.intp, lanes_type), codegen


@intrinsic
def load_half(typingctx, array, index):
    """Sixteen bfloat16 numbers, held as the int16 of their bits, from ``index`` on."""

    def codegen(context, builder, sig, args):
        wide, small = (ir.VectorType(ir.IntType(n), LANES) for n in (32, 16))
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        found = builder.load(builder.bitcast(builder.gep(data, [args[1]]), small.as_pointer()))
        found.align = 2
        shift = ir.Constant(wide, [16] * LANES)
        return builder.bitcast(builder.shl(builder.zext(found, wide), shift), _VECTOR)

    return lanes_type(array, types.intp), codegen


@intrinsic
def fill(typingctx, number):
    """One float32 number, sixteen times."""

    def codegen(context, builder, sig, args):
        return _repeat(builder, args[0])

    return lanes_type(types.float32), codegen


def _choose(comparison: str):
    def codegen(context, builder, sig, args):
        a, b = args
        return builder.select(builder.fcmp_ordered(comparison, a, b), a, b)

    return codegen


@intrinsic
def low(typingctx, a, b):
    """The smaller of two, lane by lane."""
    return lanes_type(lanes_type, lanes_type), _choose("<")


@intrinsic
def high(typingctx, a, b):
    """The larger of two, lane by lane."""
    return lanes_type(lanes_type, lanes_type), _choose(">")


@intrinsic
def where_less(typingctx, a, b, then, otherwise):
    """``then`` where a < b, else ``otherwise``, lane by lane."""

    def codegen(context, builder, sig, args):
        a, b, yes, no = args
        return builder.select(builder.fcmp_ordered("<", a, b), yes, no)

    return lanes_type(lanes_type, lanes_type, lanes_type, lanes_type), codegen


@intrinsic
def root(typingctx, a):
    """Square root, lane by lane."""

    def codegen(context, builder, sig, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), f"llvm.sqrt.v{LANES}f32"
        )
        return builder.call(function, args)

    return lanes_type(lanes_type), codegen


def _quads(builder, data, whole):
    """Row ``whole`` of a table with four columns, lane by lane, as four values: sixteen short loads, then turned."""
    kind, count, single = ir.VectorType(ir.IntType(32), LANES), ir.IntType(32), ir.FloatType()
    kept = cgutils.alloca_once(builder, kind)
    builder.store(whole, kept).align = 4
    numbers = builder.bitcast(kept, count.as_pointer())
    quads = []
    for lane in range(LANES):
        place = builder.load(builder.gep(numbers, [ir.Constant(count, lane)]))
        n = builder.sext(place, ir.IntType(64))
        address = builder.gep(data, [builder.mul(n, ir.Constant(ir.IntType(64), 4))])
        quad = builder.load(builder.bitcast(address, ir.VectorType(single, 4).as_pointer()))
        quad.align = 4
        quads.append(quad)

    def pick(a, b, places):
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(count, len(places)), places))

    pairs = [pick(quads[k], quads[k + 1], list(range(8))) for k in range(0, LANES, 2)]
    fours = [pick(pairs[k], pairs[k + 1], list(range(16))) for k in range(0, LANES // 2, 2)]
    parts = []
    for column in (0, 2):
        places = [c + 4 * row for c in (column, column + 1) for row in range(8)]
        low_lanes, high_lanes = (pick(fours[k], fours[k + 1], places) for k in (0, 2))
        parts += [pick(low_lanes, high_lanes, [*range(k, k + 8), *range(16 + k, 24 + k)]) for k in (0, 8)]
    return parts


@intrinsic
def curve_at(typingctx, pieces, current):
    """Value, first and second derivative of cubics ``pieces`` (float32 (pieces, 4)) at ``current`` in grid steps, lane by lane.

    Straight beyond the grid's ends; derivatives are per grid step.
    """

    def codegen(context, builder, sig, args):
        array = context.make_array(sig.args[0])(context, builder, args[0])
        count = builder.extract_value(array.shape, 0)
        whole_type = ir.VectorType(ir.IntType(32), LANES)
        top = builder.uitofp(builder.sub(count, ir.Constant(count.type, 1)), _FLOAT)
        zero = _repeat(builder, ir.Constant(_FLOAT, 0.0))
        inside = builder.select(builder.fcmp_ordered(">", args[1], zero), args[1], zero)
        upper = _repeat(builder, top)
        inside = builder.select(builder.fcmp_ordered("<", inside, upper), inside, upper)
        whole = builder.fptosi(inside, whole_type)
        floor = builder.sitofp(whole, _VECTOR)
        parts = _quads(builder, array.data, whole)
        a, b, c, d = parts
        one = _repeat(builder, ir.Constant(_FLOAT, 1.0))
        t = builder.fsub(args[1], floor)
        s = builder.select(builder.fcmp_ordered(">", t, zero), t, zero)
        s = builder.select(builder.fcmp_ordered("<", s, one), s, one)

        def times(x, y):
            return builder.fmul(x, y, flags=("fast",))

        def plus(x, y):
            return builder.fadd(x, y, flags=("fast",))

        two, three = (_repeat(builder, ir.Constant(_FLOAT, q)) for q in (2.0, 3.0))
        cubic = times(s, d)
        second = times(two, plus(c, times(three, cubic)))
        first = plus(b, times(s, plus(times(two, c), times(three, cubic))))
        value = plus(a, times(s, plus(b, times(s, plus(c, cubic)))))
        value = plus(value, times(builder.fsub(t, s), first))
        second = builder.select(builder.fcmp_ordered("==", t, s), second, zero)
        return context.make_tuple(builder, sig.return_type, [value, first, second])

    return types.UniTuple(lanes_type, 3)(pieces, lanes_type), codegen


@intrinsic
def lines_at(typingctx, pieces, place):
    """Two straight lines a piece, ``pieces`` (float32 (pieces, 4): value, rise, value, rise), at ``place`` ≥ 0 in pieces."""

    def codegen(context, builder, sig, args):
        array = context.make_array(sig.args[0])(context, builder, args[0])
        count = builder.extract_value(array.shape, 0)
        top = _repeat(builder, builder.uitofp(builder.sub(count, ir.Constant(count.type, 1)), _FLOAT))
        inside = builder.select(builder.fcmp_ordered("<", args[1], top), args[1], top)
        whole = builder.fptosi(inside, ir.VectorType(ir.IntType(32), LANES))
        parts = _quads(builder, array.data, whole)
        t = builder.fsub(args[1], builder.sitofp(whole, _VECTOR))
        first, second = (
            builder.fadd(parts[k], builder.fmul(t, parts[k + 1], flags=("fast",)), flags=("fast",)) for k in (0, 2)
        )
        return context.make_tuple(builder, sig.return_type, [first, second])

    return types.UniTuple(lanes_type, 2)(pieces, lanes_type), codegen


@intrinsic
def store_bytes(typingctx, array, index, value):
    """Write sixteen whole numbers between −128 and 127 to an int8 array from ``index`` on."""

    def codegen(context, builder, sig, args):
        wide = builder.fptosi(args[2], ir.VectorType(ir.IntType(32), LANES))
        small = ir.VectorType(ir.IntType(8), LANES)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        start = builder.bitcast(builder.gep(data, [args[1]]), small.as_pointer())
        done = builder.store(builder.trunc(wide, small), start)
        done.align = 1
        return context.get_dummy_value()

    return types.none(array, types.intp, lanes_type), codegen


@intrinsic
def rounded(typingctx, a):
    """The nearest whole number, lane by lane."""

    def codegen(context, builder, sig, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), f"llvm.rint.v{LANES}f32"
        )
        return builder.call(function, args)

    return lanes_type(lanes_type), codegen
