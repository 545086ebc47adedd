"""Import of PyTorch checkpoints and export to PyTorch, with bitwise equal parameters.

`tensor_files` reads and writes .pth and .safetensors, with `restricted_loader` for pickles;
`infer_architecture` identifies the model from its tensors, `published_checkpoints` the released
files; `name_mapping` and `optimizer_state` convert; `tensor_metadata` is the JSON beside the
tensors. `from_torch` (with `converted_run`) and `to_torch` are the entry points.
Imports everything up to `training`; PyTorch only when used.
"""
