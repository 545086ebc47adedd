"""Weights from PyTorch and to PyTorch, equal bit by bit.

```
 tensor_files.py      .pth and .safetensors: read without running anything, written whole
 published.py         the files that the authors published: checksums, statistics, weighting
 recognition.py       which model it is, from its tensors alone
 names.py             names and layouts beside those here          buffers.py   what is not learnt
 moments.py           the state of their optimizer
 importing.py         all of it: a file becomes a checkpoint       exporting.py the way back
```
"""
