"""A task file of a user, whose vectors end in buffers."""

from pathlib import Path

NAME = "own.py:mine"
"""What a cluster file beside it calls the task."""


def write_task(folder: Path, buffers: object, d: int = 10) -> None:
    """Write the task's file.

    Args:
        folder: That of the cluster file.
        buffers: What the task says that so many coordinates are, right or wrong.
        d: Coordinates of its vectors.
    """
    (folder / "own.py").write_text(
        "from byzsgd.tasks.quadratic import Quadratic\n"
        "class Mine(Quadratic):\n"
        f"    def n_buffers(self): return {buffers}\n"
        f"def mine(): return Mine({d}, noise=1.0)\n"
    )
