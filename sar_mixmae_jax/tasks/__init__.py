"""Downstream tasks: one class for each, with its records, model, loss, metrics and report.

`base.py` and `task_report.py` are the interface, `registry.py` finds a task by name;
`classification*.py`, `flood*.py` and `segmentation*.py` are the tasks. `task_dataset.py` opens a
split for a task, `supervised.py` is the fine-tuning objective, `evaluation_report.py` writes the
folder of an evaluation. May import `utils`, `data`, `evaluation`, `models` and `objectives`.
"""
