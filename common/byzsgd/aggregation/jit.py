"""Networks compiled to vector code: the fast twin of NumPy's path, for those who have llvmlite.

1. It MUST write the bits that NumPy's path writes, for all finite rows: the same operations in
   the same order, with none of the flags that allow LLVM to compute something else.
2. It MUST leave all else to NumPy's path: rows that are not finite above all, so that they are
   refused in one place and in the same words, and sums that overflow.
3. It MUST NOT be needed: where llvmlite is missing or fails, NumPy does the work.
"""

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from byzsgd.aggregation.mixture import Row
from byzsgd.aggregation.network import Network
from byzsgd.vectors import Vector

LANES = 16
"""Coordinates handled at once: one register of AVX-512. LLVM splits them for other CPUs."""

ROWS_MAX = 32
"""Rows above which NumPy does the work: programs outgrow the CPU's registers. Compiling takes
some 20 ms up to here."""

COORDINATES_MIN = 1 << 14
"""Coordinates below which NumPy does the work: the tenth of a millisecond that it takes is not
worth loading llvmlite, which takes a tenth of a second and 70 MB. At least ``LANES``."""


def run(network: Network, rows: Sequence[Row], result: Vector) -> bool:
    """Whether compiled code has written the mean of the network's middles to ``result``.

    If not, ``result`` is undefined, and it is for NumPy's path to write it or to refuse the rows.

    Args:
        network: A program whose inputs are the rows.
        rows: n rows of length d.
        result: ``(d,)`` float32, contiguous, sharing no memory with a row.
    """
    if len(rows) > ROWS_MAX or len(result) < COORDINATES_MIN:
        return False
    vectors = [row for row in rows if isinstance(row, np.ndarray) and row.flags.c_contiguous]
    if len(vectors) < len(rows):
        return False
    kernel = compiled(network, len(rows))
    return kernel is not None and kernel(vectors, result)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Compiled code. It releases the GIL, keeps no state, and may run in several threads."""

    engine: object
    """What owns the memory that the code lies in."""
    code: Any
    """A C function of the addresses of the rows, that of the result, and d; see ``assembly``."""

    def __call__(self, rows: Sequence[Vector], result: Vector) -> bool:
        """Whether every row and what was computed is finite, so that ``result`` holds it.

        Args:
            rows: As many as it was compiled for, ``(d,)`` float32, contiguous; d >= ``LANES``.
            result: ``(d,)`` float32, contiguous, sharing no memory with a row.
        """
        addresses = (ctypes.c_void_p * len(rows))(*(row.ctypes.data for row in rows))
        return bool(self.code(addresses, result.ctypes.data, len(result)))


# Two threads may both compile the same: llvmlite locks LLVM, and either kernel will do.
@cache
def compiled(network: Network, n: int) -> Kernel | None:
    """The kernel of a network of n inputs, made at the first call; None where that fails."""
    try:
        return assembled(assembly(n, *program(network, n)))
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None


def assembled(text: str) -> Kernel:
    """The kernel that LLVM makes of an assembly text, for the CPU that this runs on.

    Raises:
        ImportError: If there is no llvmlite.
        OSError: If its library does not load, or this process may not make code.
        RuntimeError: If LLVM does not take the text, or does not know the CPU.
        AttributeError: If llvmlite has other functions than when this was written.
    """
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
    signature = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return Kernel(engine, signature(engine.get_function_address("kernel")))


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


def assembly(n: int, lines: Sequence[str], value: str) -> str:
    """LLVM's assembly of a C function that runs a program on all coordinates of n rows.

    It is ``int32_t kernel(const float *const *rows, float *result, int64_t d)`` and returns 1 if
    every row and the result are finite, else 0. It does ``LANES`` coordinates at a time and the
    last ones of d together, so some twice, and d must not be less. No address need be aligned.

    Args:
        n: How many rows.
        lines: Instructions over ``%row0``, ``%row1`` and so on: ``LANES`` coordinates each.
        value: The name of what they compute for the result.
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
    for k, number in enumerate([*(f"%row{k}" for k in range(n)), value]):
        # Zero times a number is zero, but NaN if it is not finite; and NaN plus anything is NaN.
        check.append(
            f"%zero{k + 1} = call {FLOATS} @llvm.fmuladd.v{LANES}f32"
            f"({FLOATS} {number}, {FLOATS} {ZERO}, {FLOATS} %zero{k})"
        )
    newline = "\n  "
    return f"""
declare {FLOATS} @llvm.fmuladd.v{LANES}f32({FLOATS}, {FLOATS}, {FLOATS})

define i32 @kernel(ptr %rows, ptr %result, i64 %d) {{
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
