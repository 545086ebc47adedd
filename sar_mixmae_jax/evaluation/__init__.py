"""Evaluation of predictions on the host, the same for all tasks.

`predictions.py` checks, saves and loads the logits and labels of a split; `metrics.py` computes
binary and multi-label metrics, `confusion.py` those of pixels; `bootstrap.py` their confidence
intervals by a cluster bootstrap; `curves.py` draws precision-recall curves.
May import `utils`; pure NumPy, SciPy, scikit-learn and Matplotlib, no JAX.
"""
