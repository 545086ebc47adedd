"""Helpers without knowledge of the models: files, errors, hashes, typed JSON, tables, figures.

`errors` has the exceptions whose message is shown without a traceback, `files` atomic writes,
`hashing` checksums and id hashes, `typed_json` checked conversion between JSON and dataclasses,
`command_line` flags, `background` and `processes` threads and processes. Imports no other package
of this project.
"""
