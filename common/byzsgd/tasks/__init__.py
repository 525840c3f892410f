"""What there is to learn: the contract of a task, the shipped tasks, and how a task is loaded.

``byzsgd.tasks.torch_task.TorchTask`` makes a task of any torch module. Importing this package
imports no torch: a server, and whoever only asks for a task's defaults, starts without it.
"""

from byzsgd.tasks.task import (
    TASKS,
    BufferedTask,
    Defaults,
    FlippableTask,
    GradientSource,
    LabelledTask,
    Share,
    Shipped,
    Task,
    buffers_of,
    load_task,
)

__all__ = [
    "TASKS",
    "BufferedTask",
    "Defaults",
    "FlippableTask",
    "GradientSource",
    "LabelledTask",
    "Share",
    "Shipped",
    "Task",
    "buffers_of",
    "load_task",
]
