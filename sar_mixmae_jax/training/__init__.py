"""Training: pretraining, fine-tuning and probes, and what every run needs.

`pretrain`, `finetune` and `linear_probe` set up a run (`setup`, `config`, `downstream`,
`source_checkpoint`); `trainer` has the loop, `train_step` and `optimizer` the update, `sharding`
and `distributed` the devices and processes; `*_evaluator` and `metric_logger` report on it;
`workdir`, `checkpoint` and `restore` store it; `cost` predicts it. Imports `tasks` and all packages
below.
"""
