"""Downstream tasks: one class for each, with its records, model, loss, metrics and report.

`base.py` is the interface, `registry.py` finds a task by name; `classification*.py` and `flood*.py`
are the tasks. `task_dataset.py` opens a split for a task, `supervised.py` is the fine-tuning
objective, `evaluation_report.py` writes the folder of an evaluation.
May import `utils`, `data`, `evaluation`, `models` and `objectives`.
"""
