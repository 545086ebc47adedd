"""How fast is it here? `python -m benchmarks --variant=base --batch_size=8`.

```
 options.py    flags, and the configurations of them
 measuring.py  simulated data on the disk, and everything measured on them
   reading.py     reading and batching, against a loop over samples on the host
   training.py    pretraining: the step, and the loop that reads its batches
   tuning.py      fine-tuning: the step, and evaluation from the disk
   machine.py     what the numbers belong to, and its matrix products
 clock.py      turns in one process        table.py      the results as a table
```
"""
