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

#: Numbers in one value.
LANES = 16
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


@intrinsic
def curve_at(typingctx, pieces, current):
    """Value, first and second derivative of cubics ``pieces`` (float32 (pieces, 4)) at ``current`` in grid steps, lane by lane.

    Straight beyond the grid's ends; derivatives are per grid step.
    """

    def codegen(context, builder, sig, args):
        array = context.make_array(sig.args[0])(context, builder, args[0])
        count = builder.extract_value(array.shape, 0)
        whole_type, single = ir.VectorType(ir.IntType(32), LANES), ir.IntType(32)
        top = builder.uitofp(builder.sub(count, ir.Constant(count.type, 1)), _FLOAT)
        zero = _repeat(builder, ir.Constant(_FLOAT, 0.0))
        inside = builder.select(builder.fcmp_ordered(">", args[1], zero), args[1], zero)
        upper = _repeat(builder, top)
        inside = builder.select(builder.fcmp_ordered("<", inside, upper), inside, upper)
        whole = builder.fptosi(inside, whole_type)
        floor = builder.sitofp(whole, _VECTOR)
        parts = [ir.Constant(_VECTOR, ir.Undefined)] * 4
        quad = ir.VectorType(_FLOAT, 4)
        for lane in range(LANES):
            at = ir.Constant(single, lane)
            n = builder.sext(builder.extract_element(whole, at), ir.IntType(64))
            address = builder.gep(array.data, [builder.mul(n, ir.Constant(ir.IntType(64), 4))])
            piece = builder.load(builder.bitcast(address, quad.as_pointer()))
            piece.align = 4
            for k in range(4):
                number = builder.extract_element(piece, ir.Constant(single, k))
                parts[k] = builder.insert_element(parts[k], number, at)
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
