"""Summary page of a run: WORKDIR/summary.html, made from the files of the run alone.

`history` reads the files; `sections`, `evaluations`, `weighting_section` and `reproduce` turn them
into the blocks of `content`; `axes` and `plots` draw; `page` renders `page.html.j2` and writes it.
May import `utils`, `data`, `evaluation`, `objectives`, `tasks` and `training`.
"""
