"""Every benchmark of docs/performance.md, one after another: what ``make bench`` runs.

    python -m benchmarks
    python -m benchmarks --only transport --into docs/performance.md

Writes ``run/bench/NAME.json`` for each, and prints all tables; ``--into`` also puts them into a
document, between its marks. Ends with status 1 if a benchmark failed; a target that is missed is
no failure, as a busy machine misses some: it is in the table.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.rows import cpu, markdown, read

NAMES = ("aggregation", "transport", "cluster", "overhead", "overlapped", "halves")
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"


def into(document: Path, name: str, text: str) -> None:
    """Put a text between the marks of a name in a document."""
    content = document.read_text(encoding="utf-8")
    before, mark, rest = content.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    if not mark or not end:
        sys.exit(f"{document} has no marks for {name}")
    document.write_text(f"{before}{mark}\n\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=Path("run/bench"))
    parser.add_argument("--into", type=Path, metavar="FILE", help="a document with marks")
    words = parser.parse_args()
    failed = []
    began = time.monotonic()
    print(f"on {cpu()}", flush=True)
    for name in words.only:
        file = words.out / f"{name}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
        if subprocess.run(command, check=False).returncode or not file.exists():
            failed.append(name)
        elif words.into is not None:
            into(words.into, name, markdown(read(file)))
    rows = [
        row for name in words.only if name not in failed for row in read(words.out / f"{name}.json")
    ]
    print(markdown(rows))
    missed = [row.work for row in rows if row.met is False]
    print(f"{len(rows)} rows, {len(missed)} targets missed; {time.monotonic() - began:.0f} s")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
