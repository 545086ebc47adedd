"""From saved predictions to metrics with confidence intervals to a folder that people can read.

```
 kinds.py                   of predictions: many labels (class_*), floods (flood_*); one entry each
 predictions.py checks.py   what a model said of every record or pair, checked, saved
 metrics.py scores.py       of one question, of many labels      flood_metrics.py   of floods
 gap.py                     of the days between images alone     equal_views.py     shown once
 replicates.py bootstrap.py the same of resampled groups, fast   interval.py        intervals
 curves.py class_figures.py flood_figures.py pairs.py pair_panels.py pair_figures.py   pictures
 table.py class_report.py flood_report.py   tables; which pictures there are
 report.py                  all of it in one folder              folder.py          whole or not
```
"""
