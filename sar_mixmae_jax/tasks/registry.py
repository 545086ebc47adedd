"""The registered tasks by name.

A module of this package registers its task when it is imported; `get_task` and `task_names` import
all modules of the package first. A name that is read from a file is only compared with the
registered names.
"""

import functools
import importlib
import pkgutil
from typing import TypeVar

from sar_mixmae_jax import tasks
from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.utils.errors import InputError, look_up

TASKS: dict[str, Task] = {}
"""Name -> task, filled by `register_task`."""

TaskClass = TypeVar("TaskClass", bound=type[Task])


def register_task(cls: TaskClass) -> TaskClass:
    """Register a task class under its `name`; a class decorator.

    Raises:
      ValueError: another class has the name.
    """
    if cls.name in TASKS:
        raise ValueError(f"task {cls.name!r} is registered twice: {TASKS[cls.name]!r} and {cls}")
    TASKS[cls.name] = cls()
    return cls


@functools.cache
def _import_task_modules() -> None:
    for module in pkgutil.iter_modules(tasks.__path__):
        importlib.import_module(f"{tasks.__name__}.{module.name}")


def task_names() -> list[str]:
    """Return the names of all tasks, sorted."""
    _import_task_modules()
    return sorted(TASKS)


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
      InputError: there is none of this name; the message lists those there are.
    """
    if not isinstance(name, str):
        raise InputError(f"task is {name!r}, expected one of {', '.join(task_names())}")
    _import_task_modules()
    return look_up(TASKS, name, "task")


def task_for_dataset(dataset: PatchDataset) -> Task:
    """Return the task that a dataset is for, the first in the order of names.

    Raises:
      InputError: the dataset has labels for none.
    """
    for name in task_names():
        if TASKS[name].matches(dataset):
            return TASKS[name]
    raise InputError(
        f"{dataset.name} has no labels: choose a labelled dataset, such as bigearthnet_s1"
    )
