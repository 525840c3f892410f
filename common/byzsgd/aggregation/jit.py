"""Networks and means compiled to vector code: the fast twin of NumPy's path, with llvmlite.

1. It MUST write the bits that NumPy's path writes, for all finite rows: the same operations in
   the same order, with none of the flags that allow LLVM to compute something else.
2. It MUST leave all else to NumPy's path: rows that are not finite above all, so that they are
   refused in one place and in the same words, and sums that overflow.
3. It MUST NOT be needed: where llvmlite is missing or fails, NumPy does the work.
"""

import ctypes
import mmap
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.network import Network
from byzsgd.vectors import Vector

LANES = 16
"""Coordinates handled at once: one register of AVX-512. LLVM splits them for other CPUs."""

ROWS_MAX = 32
"""Inputs of a network above which NumPy does the work: programs outgrow the CPU's registers.
Compiling takes some 20 ms up to here."""

COORDINATES_MIN = 1 << 14
"""Coordinates below which NumPy does the work: the tenth of a millisecond that it takes is not
worth loading llvmlite, which takes a tenth of a second and 70 MB. At least ``LANES``."""

STREAMS_MAX = 16
"""Rows that the CPU reads ahead by itself, all at once; of more rows, the code asks for what is
``AHEAD``."""

AHEAD = 1 << 10
"""Coordinates that rows are asked for ahead of their use: 4 KiB."""


def run(network: Network, rows: Sequence[Sized], result: Vector) -> bool:
    """Whether compiled code has written the mean of the network's middles to ``result``.

    If not, ``result`` is undefined, and it is for NumPy's path to write it or to refuse the rows.

    Args:
        network: A program whose inputs are the rows.
        rows: n rows of length d.
        result: ``(d,)`` float32, contiguous, sharing no memory with a row.
    """
    return len(rows) <= ROWS_MAX and _run(network, rows, result)


def run_mean(rows: Sequence[Sized], result: Vector) -> bool:
    """Whether compiled code has written the mean of the rows to ``result``; see ``run``."""
    return _run("mean", rows, result)


def run_weighted(rows: Sequence[Sized], weights: NDArray[np.float32], result: Vector) -> bool:
    """Whether compiled code has written the sum of weights times rows to ``result``; see ``run``.

    Args:
        rows: n rows of length d.
        weights: ``(n,)`` float32.
        result: ``(d,)`` float32, contiguous, sharing no memory with a row.
    """
    return _run("weighted", rows, result, np.ascontiguousarray(weights))


def _run(
    work: Network | str,
    rows: Sequence[Sized],
    result: Vector,
    weights: NDArray[np.float32] | None = None,
) -> bool:
    vectors = contiguous(rows)
    if vectors is None:
        return False
    kernel = compiled(work, len(rows))
    return kernel is not None and kernel(vectors, result, weights)


def contiguous(rows: Sequence[Sized]) -> list[Vector] | None:
    """The rows, if all are vectors that compiled code takes; else None."""
    if len(rows[0]) < COORDINATES_MIN:
        return None
    vectors = [row for row in rows if isinstance(row, np.ndarray) and row.flags.c_contiguous]
    return vectors if len(vectors) == len(rows) else None


def addresses(rows: Sequence[Vector]) -> "ctypes.Array[ctypes.c_void_p]":
    """What compiled code takes for rows: an array of where they begin."""
    return (ctypes.c_void_p * len(rows))(*(row.ctypes.data for row in rows))


@dataclass(frozen=True, slots=True)
class Kernel:
    """Compiled code. It releases the GIL, keeps no state, and may run in several threads."""

    code: Any
    """A C function of the addresses of the rows, of the weights and of the result, and d; see
    ``assembly``."""

    def __call__(
        self, rows: Sequence[Vector], result: Vector, weights: NDArray[np.float32] | None = None
    ) -> bool:
        """Whether every row and what was computed is finite, so that ``result`` holds it.

        Args:
            rows: As many as it was compiled for, ``(d,)`` float32, contiguous; d >= ``LANES``.
            result: ``(d,)`` float32, contiguous, sharing no memory with a row.
            weights: ``(n,)`` float32, contiguous, if it was compiled for weights.
        """
        where = None if weights is None else weights.ctypes.data
        return bool(self.code(addresses(rows), where, result.ctypes.data, len(result)))


# Two threads may both compile the same: llvmlite locks LLVM, and either kernel will do.
@cache
def compiled(work: Network | str, n: int) -> Kernel | None:
    """The kernel of n rows for a network, "mean" or "weighted"; None where compiling fails."""
    if isinstance(work, Network):
        lines, value = program(work, n)
    else:
        lines, value = mean_program(n) if work == "mean" else weighted_program(n)
    text = assembly(n, lines, value, weighted=work == "weighted")
    code = assembled(text, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return None if code is None else Kernel(code)


def assembled(text: str, *arguments: type) -> Any:
    """The C function ``kernel`` of an assembly text, for the CPU that this runs on.

    Args:
        text: Of LLVM's assembly language.
        arguments: The types of ctypes that the function takes; it returns an int32.

    Returns:
        The function, or None: where there is no llvmlite or its library does not load, this
        process may not make code, LLVM does not take the text or know the CPU, or llvmlite has
        other functions than when this was written.
    """
    try:
        engine = _engine(text)
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None
    code: Any = ctypes.CFUNCTYPE(ctypes.c_int32, *arguments)(engine.get_function_address("kernel"))
    code.engine = engine  # It owns the memory that the code lies in.
    return code


def _engine(text: str) -> Any:
    """What LLVM makes of an assembly text."""
    # Imported here, because most processes never get here: it takes a tenth of a second.
    import llvmlite.binding as llvm

    # Where hardening forbids it, systemd's MemoryDenyWriteExecute for one, this raises. LLVM would
    # not notice, and its code would end the process.
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    mmap.mmap(-1, 1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, everything).close()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    return engine


FLOATS = f"<{LANES} x float>"
ZERO = "zeroinitializer"


def program(network: Network, n: int) -> tuple[list[str], str]:
    """A network's lines for ``assembly``, and the name of the mean of its middles.

    Line by line what ``chunks`` and ``mean`` of ``byzsgd.aggregation.middles`` do.
    """
    lines = []
    registers = [f"%row{k}" for k in range(n)] + [""] * (network.registers - n)
    for index, (minimum, left, right, to) in enumerate(network.operations):
        a, b = registers[left], registers[right]
        lines += [
            f"%is{index} = fcmp {'olt' if minimum else 'ogt'} {FLOATS} {a}, {b}",
            f"%v{index} = select <{LANES} x i1> %is{index}, {FLOATS} {a}, {FLOATS} {b}",
        ]
        registers[to] = f"%v{index}"
    return lines + _mean([registers[middle] for middle in network.middles]), "%mean"


def mean_program(n: int) -> tuple[list[str], str]:
    """The lines for the mean of all rows, as ``byzsgd.aggregation.average`` computes it."""
    lines, total = [], "%row0"
    for k in range(1, n):
        lines.append(f"%sum{k} = fadd {FLOATS} {total}, %row{k}")
        total = f"%sum{k}"
    return [*lines, f"%mean = fdiv {FLOATS} {total}, {_all(n)}"], "%mean"


def weighted_program(n: int) -> tuple[list[str], str]:
    """The lines for a weighted sum, as ``byzsgd.aggregation.mixture`` computes it."""
    lines = [f"%product{k} = fmul {FLOATS} %row{k}, %weight{k}" for k in range(n)]
    total = "%product0"
    for k in range(1, n):
        lines.append(f"%sum{k} = fadd {FLOATS} {total}, %product{k}")
        total = f"%sum{k}"
    return lines, total


def _mean(values: Sequence[str]) -> list[str]:
    """The lines that compute ``%mean``."""
    count = len(values)
    if count == 1:
        return [f"%mean = fadd {FLOATS} {values[0]}, {ZERO}"]
    if count == 2:
        lines = [f"%half{k} = fmul {FLOATS} {value}, {_all(0.5)}" for k, value in enumerate(values)]
        lines.append(f"%share = fadd {FLOATS} %half1, %half0")
    else:
        lines = [f"%sum0 = fadd {FLOATS} {values[0]}, {values[-1]}"]
        for k in range(1, count // 2):
            lines += [
                f"%pair{k} = fadd {FLOATS} {values[k]}, {values[-1 - k]}",
                f"%sum{k} = fadd {FLOATS} %sum{k - 1}, %pair{k}",
            ]
        total = f"%sum{count // 2 - 1}"
        if count % 2:
            lines.append(f"%sum = fadd {FLOATS} {total}, {values[count // 2]}")
            total = "%sum"
        lines.append(f"%share = fdiv {FLOATS} {total}, {_all(count)}")
    return [*lines, f"%mean = fadd {FLOATS} %share, {ZERO}"]


def _all(number: float) -> str:
    """A register that holds a number, which float32 and decimals hold exactly, in each lane."""
    return f"<{', '.join([f'float {float(number)}'] * LANES)}>"


def assembly(n: int, lines: Sequence[str], value: str, weighted: bool = False) -> str:
    """LLVM's assembly of a C function that runs a program on all coordinates of n rows.

    It is ``int32_t kernel(const float *const *rows, const float *weights, float *result, int64_t
    d)`` and returns 1 if every row and the result are finite, else 0. It does ``LANES`` coordinates
    at a time and the last ones of d together, so some twice, and d must not be less. No address
    need be aligned.

    Args:
        n: How many rows.
        lines: Instructions over ``%row0``, ``%row1`` and so on: ``LANES`` coordinates each.
        value: The name of what they compute for the result.
        weighted: Whether they use ``%weight0`` and so on: a row's weight in every lane.
    """
    address, load, check = [], [], []
    for k in range(n):
        address += [
            f"%slot{k} = getelementptr ptr, ptr %rows, i64 {k}",
            f"%base{k} = load ptr, ptr %slot{k}",
        ]
        load += [
            f"%from{k} = getelementptr float, ptr %base{k}, i64 %at",
            f"%row{k} = load {FLOATS}, ptr %from{k}, align 1",
        ]
        if n > STREAMS_MAX:
            load += [
                f"%ahead{k} = getelementptr float, ptr %from{k}, i64 {AHEAD}",
                f"call void @llvm.prefetch.p0(ptr %ahead{k}, i32 0, i32 2, i32 1)",
            ]
        if weighted:
            address += [
                f"%place{k} = getelementptr float, ptr %weights, i64 {k}",
                f"%number{k} = load float, ptr %place{k}",
                f"%first{k} = insertelement {FLOATS} poison, float %number{k}, i32 0",
                f"%weight{k} = shufflevector {FLOATS} %first{k}, {FLOATS} poison, "
                f"<{LANES} x i32> {ZERO}",
            ]
    for k, number in enumerate([*(f"%row{k}" for k in range(n)), value]):
        # Zero times a number is zero, but NaN if it is not finite; and NaN plus anything is NaN.
        check.append(
            f"%zero{k + 1} = call {FLOATS} @llvm.fmuladd.v{LANES}f32"
            f"({FLOATS} {number}, {FLOATS} {ZERO}, {FLOATS} %zero{k})"
        )
    newline = "\n  "
    return f"""
declare {FLOATS} @llvm.fmuladd.v{LANES}f32({FLOATS}, {FLOATS}, {FLOATS})
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)

define i32 @kernel(ptr %rows, ptr %weights, ptr %result, i64 %d) {{
start:
  %last = sub i64 %d, {LANES}
  {newline.join(address)}
  br label %loop
loop:
  %low = phi i64 [ 0, %start ], [ %next, %loop ]
  %zero0 = phi {FLOATS} [ {ZERO}, %start ], [ %zero{n + 1}, %loop ]
  %inside = icmp slt i64 %low, %last
  %at = select i1 %inside, i64 %low, i64 %last
  {newline.join(load)}
  {newline.join(lines)}
  {newline.join(check)}
  %to = getelementptr float, ptr %result, i64 %at
  store {FLOATS} {value}, ptr %to, align 1
  %next = add i64 %low, {LANES}
  %more = icmp slt i64 %next, %d
  br i1 %more, label %loop, label %end
end:
  %finite = fcmp oeq {FLOATS} %zero{n + 1}, {ZERO}
  %bits = bitcast <{LANES} x i1> %finite to i{LANES}
  %all = icmp eq i{LANES} %bits, -1
  %answer = zext i1 %all to i32
  ret i32 %answer
}}
"""
