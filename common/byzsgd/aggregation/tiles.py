"""Sums of squared differences compiled to vector code: the fast twin of ``distances``.

What ``jit`` says of compiled code holds here too. A tile is a few rows against a few others, or
against one another: each is loaded once for all its pairs, whose sums stay in registers.
"""

import ctypes
from functools import cache
from itertools import combinations, product
from typing import Any

from byzsgd.aggregation.jit import FLOATS, LANES, ZERO, assembled

ROWS_MAX = 256
"""Rows above which NumPy does the work: there is a line of code for every tile."""

ALONE_MAX = 7
"""Rows whose pairs, 21, fit into the 32 registers of AVX-512 all at once."""

FEW_MAX = 24
"""Rows up to which groups of five are faster than those of four, which waste fewer registers."""


@cache
def compiled(n: int, block: int) -> Any | None:
    """The C function ``kernel`` of n rows, made at the first call; None where that fails.

    It is ``int32_t kernel(const float *const *rows, int64_t low, int64_t count, double *squares)``:
    for ``count`` blocks from the coordinate ``low`` on it writes to ``squares[block][i][j]``, for
    all i < j, what ``byzsgd.aggregation.distances.Stack`` does. The GIL is released.
    """
    if not 2 <= n <= ROWS_MAX:
        return None
    return assembled(
        assembly(n, block), ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    )


def groups(n: int) -> list[range]:
    """The rows, dealt out into groups of nearly equal size: a tile is of one or of two."""
    size = ALONE_MAX if n <= ALONE_MAX else 5 if n <= FEW_MAX else 4
    count = -(-n // size)
    return [range(n * k // count, n * (k + 1) // count) for k in range(count)]


def assembly(n: int, block: int) -> str:
    """LLVM's assembly of ``kernel``; see ``compiled``."""
    tiles = [(group, range(0)) for group in groups(n)] + list(combinations(groups(n), 2))
    shapes = dict.fromkeys((len(these), len(those)) for these, those in tiles)
    calls = [
        f"call void @tile{len(these)}x{len(those)}(ptr %rows, i64 {these.start}, "
        f"i64 {those.start}, i64 %at, ptr %to)"
        for these, those in tiles
    ]
    newline = "\n  "
    return f"""
@one = global float 1.0
declare {FLOATS} @llvm.fmuladd.v{LANES}f32({FLOATS}, {FLOATS}, {FLOATS})
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
{folded()}
{"".join(tile(n, block, these, those) for these, those in shapes)}
define i32 @kernel(ptr %rows, i64 %low, i64 %count, ptr %squares) {{
start:
  br label %loop
loop:
  %index = phi i64 [ 0, %start ], [ %next, %loop ]
  %away = mul i64 %index, {block}
  %at = add i64 %low, %away
  %pairs = mul i64 %index, {n * n}
  %to = getelementptr double, ptr %squares, i64 %pairs
  {newline.join(calls)}
  %next = add i64 %index, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %end
end:
  ret i32 1
}}
"""


def tile(n: int, block: int, these: int, those: int) -> str:
    """The function for one block of ``these`` rows from i on and ``those`` from j on.

    All pairs of one of each; if those are none, all pairs among these. Such a tile also asks for
    the next block of its rows.
    """
    rows = [("%i", k) for k in range(these)] + [("%j", k) for k in range(those)]
    if those:
        pairs = list(product(range(these), range(these, these + those)))
    else:
        pairs = list(combinations(range(these), 2))
    begin, sums, load, add, end = [], [], [], [], []
    for k, (first, offset) in enumerate(rows):
        begin += [
            f"%index{k} = add i64 {first}, {offset}",
            f"%slot{k} = getelementptr ptr, ptr %rows, i64 %index{k}",
            f"%base{k} = load ptr, ptr %slot{k}",
            f"%block{k} = getelementptr float, ptr %base{k}, i64 %at",
        ]
        load += [
            f"%from{k} = getelementptr float, ptr %block{k}, i64 %step",
            f"%row{k} = load {FLOATS}, ptr %from{k}, align 1",
        ]
        if not those:
            load += [
                f"%ahead{k} = getelementptr float, ptr %from{k}, i64 {block}",
                f"call void @llvm.prefetch.p0(ptr %ahead{k}, i32 0, i32 2, i32 1)",
            ]
    for k, (left, right) in enumerate(pairs):
        sums.append(f"%sum{k} = phi {FLOATS} [ {ZERO}, %start ], [ %new{k}, %loop ]")
        add += [
            f"%difference{k} = fsub {FLOATS} %row{left}, %row{right}",
            f"%square{k} = fmul {FLOATS} %difference{k}, %difference{k}",
            added(k),
        ]
        end += [
            f"%total{k} = call double @folded({FLOATS} %new{k})",
            f"%line{k} = mul i64 %index{left}, {n}",
            f"%place{k} = add i64 %line{k}, %index{right}",
            f"%to{k} = getelementptr double, ptr %to, i64 %place{k}",
            f"store double %total{k}, ptr %to{k}",
        ]
    newline = "\n  "
    return f"""
define internal void @tile{these}x{those}(ptr %rows, i64 %i, i64 %j, i64 %at, ptr %to) {{
start:
  %one = load float, ptr @one
  %first = insertelement {FLOATS} poison, float %one, i32 0
  %ones = shufflevector {FLOATS} %first, {FLOATS} poison, <{LANES} x i32> {ZERO}
  {newline.join(begin)}
  br label %loop
loop:
  %step = phi i64 [ 0, %start ], [ %next, %loop ]
  {newline.join(sums)}
  {newline.join(load)}
  {newline.join(add)}
  %next = add i64 %step, {LANES}
  %more = icmp slt i64 %next, {block}
  br i1 %more, label %loop, label %end
end:
  {newline.join(end)}
  ret void
}}
"""


def added(k: int) -> str:
    """The line that adds the k-th square to its sum: every other one as square * 1 + sum.

    That is the same to the bit, and done by units that multiply: on CPUs where they are others
    than those that add, these would be the bottleneck. LLVM must not know that it is 1.
    """
    if k % 2:
        operands = f"{FLOATS} %square{k}, {FLOATS} %ones, {FLOATS} %sum{k}"
        return f"%new{k} = call {FLOATS} @llvm.fmuladd.v{LANES}f32({operands})"
    return f"%new{k} = fadd {FLOATS} %sum{k}, %square{k}"


def folded() -> str:
    """The function that adds up the lanes of a register, its halves first."""
    lines, value, width = [], "%lanes", LANES
    while width > 1:
        half = width // 2
        for name, low in (("low", 0), ("high", half)):
            places = ", ".join(f"i32 {low + k}" for k in range(half))
            lines.append(
                f"%{name}{half} = shufflevector <{width} x float> {value}, "
                f"<{width} x float> poison, <{half} x i32> <{places}>"
            )
        lines.append(f"%sum{half} = fadd <{half} x float> %low{half}, %high{half}")
        value, width = f"%sum{half}", half
    newline = "\n  "
    return f"""
define internal double @folded({FLOATS} %lanes) {{
  {newline.join(lines)}
  %sum = extractelement <1 x float> {value}, i32 0
  %wide = fpext float %sum to double
  ret double %wide
}}
"""
