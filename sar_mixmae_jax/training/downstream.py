"""Parts that fine-tuning, probes and evaluations share: splits, model, description."""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.metadata import BANDS, Statistics
from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.models.architecture import KNNConfig
from sar_mixmae_jax.models.heads import HEAD_INITS, POOLINGS, STAGES, TILINGS
from sar_mixmae_jax.models.layers import PLAIN, Kernels
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.objectives.speckle_filter import NO_FILTER
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, prepare_batch
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, load_task_dataset, take_label_fraction
from sar_mixmae_jax.training.config import (
    check_bands,
    check_numbers,
    compute_dtype,
    make_retention_policy,
    remat_policy,
)
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.encoder_loading import DEFAULT_VARIANT, encoder_architecture
from sar_mixmae_jax.training.kernel_choice import select_kernels
from sar_mixmae_jax.training.run_description import (
    ModelDescription,
    RunDescription,
    encoder_title,
)
from sar_mixmae_jax.training.setup import check_fit, warn_of_shrinking
from sar_mixmae_jax.training.source_checkpoint import (
    SourceCheckpoint,
    inherit_statistics,
    with_bands,
)
from sar_mixmae_jax.utils.errors import InputError, check_name

WITHOUT_VALIDATION = (
    "--config.validation=none trains to the last step without it, and chooses nothing"
)

VALIDATIONS = ("split", "none")
"""Values of `config.validation`."""

FLIP_DATES = ("together", "independent")
"""Values of `config.flip_dates`."""


def complete_config(config: ConfigDict, task: Task) -> ConfigDict:
    """Return the checked configuration, with the metric of the task where none is named.

    Args:
      config: as made by `configs/finetune.py`.
      task: task of the run; that of the dataset where the encoder is frozen.

    Raises:
      InputError: a name or a number in the configuration cannot be used.
    """
    config = config.copy_and_resolve_references()
    if config.best_metric is None:
        config.best_metric = f"validation/{task.best_score}"
    check_name(VALIDATIONS, config.validation, "validation")
    if config.validation == "none":
        if config.trainer == "probe":
            raise InputError(
                f"validation is none, and {config.task} is fitted by its scores on a validation "
                "split: leave it out, or name another --config.validation_split"
            )
        config.keep_best = None
    check_numbers(config)
    make_retention_policy(config)
    check_name(TILINGS, config.tiling, "tiling")
    check_name(POOLINGS, config.pooling, "pooling")
    if config.trainer == "probe":
        check_name(STAGES, config.probe.stages, "probe.stages")
    if head_init := config.get("head_init"):
        check_name(HEAD_INITS, head_init, "head_init")
    flip_dates = config.get("flip_dates", FLIP_DATES[0])
    check_name(FLIP_DATES, flip_dates, "flip_dates")
    if flip_dates == "independent" and (len(task.images) == 1 or task.labels_per_pixel):
        raise InputError(
            f"flip_dates is independent, and {task.name} has "
            f"{'labels of pixels' if task.labels_per_pixel else 'one date'}: expected together"
        )
    scores = [f"validation/{name}" for name in ("loss", *task.score_names)]
    check_name(scores, config.best_metric, "best_metric")
    for field in ("train_split", "validation_split"):
        parts = [part.partition("[")[0].strip() for part in config[field].split("+")]
        if any(part == "all" or part.startswith("test") for part in parts):
            raise InputError(
                f"{field} is {config[field]!r}: a model must not be trained or selected "
                "on the test split; name another one"
            )
    return config.lock()


def shared_splits(first: str, second: str) -> list[str]:
    """Return the splits of which two expressions read the same records.

    Args:
      first: such as "train+validation" or "train[:10%]"; parts of one split count as others.
      second: likewise.
    """
    parts = [[part.strip() for part in split.split("+")] for split in (first, second)]
    return sorted(
        {
            one.partition("[")[0]
            for one in parts[0]
            for other in parts[1]
            if one.partition("[")[0] == other.partition("[")[0]
            and (one == other or "[" not in one or "[" not in other)
        }
    )


def splits_in_parts(first: str, second: str) -> list[str]:
    """Return the splits of which two expressions, as of `shared_splits`, read any parts."""
    names = [
        {part.partition("[")[0].strip() for part in split.split("+")} for split in (first, second)
    ]
    return sorted(names[0] & names[1])


def choose_bands(
    config: ConfigDict, source_checkpoint: SourceCheckpoint | None
) -> tuple[ConfigDict, SourceCheckpoint | None]:
    """Return the configuration with the bands of the model, and its source checkpoint.

    The bands are those of the configuration, by default those of the encoder.

    Raises:
      InputError: `init_bands` does not allow them.
    """
    config = config.copy_and_resolve_references()
    config.bands = tuple(config.bands or (source_checkpoint.bands if source_checkpoint else BANDS))
    check_bands(config.bands)
    return config.lock(), with_bands(source_checkpoint, config.bands, config.init_bands)


def load_splits(config: ConfigDict, task: Task) -> tuple[TaskDataset, TaskDataset | None]:
    """Load the training and the validation split, with the bands of the model.

    Args:
      config: of `choose_bands`.
      task: task of the run.

    Returns:
      Both; the latter is None with `config.validation=none`.

    Raises:
      InputError: a split cannot be opened, or the fraction of the labels leaves out a class.
    """
    opened: list[TaskDataset] = []
    splits = [config.train_split]
    if config.validation == "split":
        splits.append(config.validation_split)
    for split in splits:
        try:
            whole = load_task_dataset(task, config.dataset, config.data_dir, split, config.bands)
        except InputError as error:
            advice = f"; {WITHOUT_VALIDATION}" if opened and "unknown split" in str(error) else ""
            raise InputError(f"{error}{advice}") from error
        chosen = take_label_fraction(
            whole,
            config.label_fraction,
            config.label_seed,
            all_classes=split == config.train_split,
        )
        opened.append(chosen)
        if is_primary_process():
            print(f"{split}: {len(chosen)} of {len(whole)} {task.record_noun}")
    if len(opened) == 1:
        if is_primary_process():
            logging.warning(
                "no validation split: no best checkpoint is selected, the last step is kept"
            )
        return opened[0], None
    training, validation = opened
    both = len(np.intersect1d(training.ids, validation.ids))
    if both and is_primary_process():
        logging.warning(
            "%d of %d %s of %s are also training records: its scores do not measure generalisation",
            both,
            len(validation),
            task.record_noun,
            config.validation_split,
        )
    parts = splits_in_parts(config.train_split, config.validation_split)
    is_folder = config.dataset.partition("/")[0] == "s1_folder"
    if is_folder and parts and not both and is_primary_process():
        logging.warning(
            "training and validation are parts of %s of %s, which are neighbours: scores of the "
            "latter do not measure generalisation; build validation scenes as a second dataset, "
            "and evaluate on it",
            ", ".join(parts),
            config.dataset,
        )
    return training, validation


@dataclasses.dataclass(frozen=True)
class DownstreamInputs:
    """Records and model of a fine-tuning or a probe.

    Attributes:
      training: records to train on.
      validation: records to select by; None with `config.validation=none`.
      statistics: statistics with which inputs are standardised, see `input_statistics`.
      kernels: kernels of the model.
      objective: task, model with a linear or convolutional head, and preprocessing.
    """

    training: TaskDataset
    validation: TaskDataset | None
    statistics: Statistics
    kernels: Kernels
    objective: FinetuneObjective


def open_inputs(
    config: ConfigDict, task: Task, source_checkpoint: SourceCheckpoint | None
) -> DownstreamInputs:
    """Open the splits of a run and make its model; print how inputs are standardised.

    Args:
      config: of `choose_bands`.
      task: task of the run.
      source_checkpoint: to start from; None: a random encoder.

    Raises:
      InputError: a split cannot be opened, sizes do not fit together, or a kernel fails.
    """
    training, validation = load_splits(config, task)
    patches = training.patches
    arch = encoder_architecture(config, source_checkpoint, len(config.bands))
    kernels = select_kernels(config, arch)
    statistics = input_statistics(config, source_checkpoint, patches)
    objective = make_finetune_objective(
        config, source_checkpoint, training, kernels=kernels, statistics=statistics
    )
    check_fit(partial(prepare_batch, objective=objective), patches.source)
    warn_of_shrinking(objective.preprocessing, patches.size)
    if is_primary_process():
        used = dataclasses.replace(patches, statistics=statistics)
        print(f"standardised with {used.statistics_text}")
    return DownstreamInputs(training, validation, statistics, kernels, objective)


def input_statistics(
    config: ConfigDict, source_checkpoint: SourceCheckpoint | None, patches: PatchDataset
) -> Statistics:
    """Return the statistics in dB with which the inputs of the model are standardised.

    Raises:
      InputError: a random encoder, or a band that the encoder lacks, has no statistics in dB; the
        dataset of `config.statistics` cannot be opened.
    """
    if config.statistics:
        other = load_patch_dataset(
            config.statistics, config.data_dir, config.train_split, patches.bands
        )
        return other.statistics
    known = source_checkpoint.bands if source_checkpoint else ()
    if patches.unit != "dB" and not set(patches.bands) <= set(known):
        encoder = "an encoder that lacks a band" if source_checkpoint else "a random encoder"
        raise InputError(
            f"{patches.name} holds {patches.unit}: {encoder} needs statistics in dB, build the "
            "dataset in dB"
        )
    return inherit_statistics(patches, source_checkpoint).statistics


def make_finetune_objective(
    config: ConfigDict,
    source_checkpoint: SourceCheckpoint | None,
    split: TaskDataset,
    votes: KNNConfig | None = None,
    kernels: Kernels = PLAIN,
    statistics: Statistics | None = None,
) -> FinetuneObjective:
    """Return task, model and preprocessing of a run.

    Args:
      config: configuration of the run.
      source_checkpoint: to start from; None: a random encoder.
      split: split of a dataset of the size and unit that all have.
      votes: settings of a nearest-neighbour head, in place of a linear one.
      kernels: kernels of the model.
      statistics: of `input_statistics`; None: computed here.

    Raises:
      InputError: sizes do not fit together, or the inputs have no statistics in dB.
    """
    task, patches = split.task, split.patches
    arch = encoder_architecture(config, source_checkpoint, len(patches.bands))
    model = task.make_model(
        arch,
        len(split.classes),
        config,
        dtype=compute_dtype(config.dtype),
        remat=remat_policy(config),
        drop_path=config.get("drop_path", 0.0),
        head_init=config.get("head_init") or ("xavier" if source_checkpoint is None else "tiny"),
        votes=votes,
        kernels=kernels,
        stages=pooled_stages(config),
    )
    statistics = statistics or input_statistics(config, source_checkpoint, patches)
    preprocessing = Preprocessing(
        image_size=task.input_size(arch, patches),
        mean=statistics.mean,
        std=statistics.std,
        resize_mode=config.resize_mode,
        random_flip=config.random_flip,
        unit=patches.unit,
        random_rotation=config.get("random_rotation", False),
        crop_size=config.get("crop_size"),
        speckle=source_checkpoint.input_filter if source_checkpoint else NO_FILTER,
    )
    apart = config.get("flip_dates", FLIP_DATES[0]) == "independent"
    frozen = config.get("freeze_encoder", False)
    return FinetuneObjective(task, model, preprocessing, apart, frozen)


def pooled_stages(config: Mapping[str, Any]) -> str:
    """Return the stages whose mean tokens are the features: an entry of `heads.STAGES`."""
    return config.get("probe", {}).get("stages", STAGES[0])


def run_title(config: ConfigDict, source_checkpoint: SourceCheckpoint | None) -> str:
    """Return task and encoder of a run in words."""
    if source_checkpoint is None:
        return f"{config.task}: a random encoder"
    source = source_checkpoint.description
    weighting, domain = "", ""
    if source.weighting:
        weighting, domain = source.weighting.name, source.weighting.domain
    title = encoder_title(source_checkpoint.variant, str(source.step), weighting, domain)
    return f"{config.task}: {title}"


def describe_run(
    config: ConfigDict,
    source_checkpoint: SourceCheckpoint | None,
    inputs: DownstreamInputs,
    objective: FinetuneObjective,
) -> RunDescription:
    """Return the description that is stored with the run and its checkpoints.

    Args:
      config: configuration of the run.
      source_checkpoint: to start from; None: a random encoder.
      inputs: of `open_inputs`.
      objective: with the head that is stored.
    """
    training = inputs.training
    speckle = objective.preprocessing.speckle
    variant = config.model.variant or DEFAULT_VARIANT
    model = ModelDescription(
        variant=source_checkpoint.variant if source_checkpoint else variant,
        architecture=objective.model.arch,
        dtype=np.dtype(objective.model.dtype).name,
        bands=training.patches.bands,
        unit="dB",
        statistics=inputs.statistics,
        speckle=speckle if speckle.filters_input else None,
        task=training.task.name,
        classes=training.classes,
        votes=objective.model.votes,
        pretrained=source_checkpoint.description if source_checkpoint else None,
    )
    dataset = training.patches.describe()
    return RunDescription(json.loads(config.to_json_best_effort()), dataset, model)
