"""Base class of all dataset builders: plan, write shards on all cores, verify, finalise.

TFDS calls `_download_and_prepare` for builds with `tfds_builders.build`, with `tfds build`, and
with a Beam runner; all three write the same shards and verify them in the same way.
"""

import abc
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

import sar_mixmae_jax
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.processes import available_cores
from tfds_builders import finalize, process_pool, shards, staging
from tfds_builders.bad_files import BadFile, BadFilesError, bad_files_table, write_table
from tfds_builders.plan import BuildSettings, Plan, make_shard_tasks, plan_fingerprint
from tfds_builders.process_pool import Tick
from tfds_builders.shards import ShardTask, WrittenShard

TABLE_ROWS = 20
"""Number of bad files that are printed; longer tables are written to a file too."""


class PatchBuilder(FileReaderBuilder):
    """A builder of a patch dataset.

    Attributes:
      ACCEPTS_ANY_CONFIG_NAME: a config of any name may be built without options, since the raw
        data differ from user to user.
      ACCEPTS_SINGLE_FILE: the raw data may be one file instead of a folder.
      settings: settings of the build.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS: ClassVar[str | None] = None
    ACCEPTS_ANY_CONFIG_NAME: ClassVar[bool] = False
    ACCEPTS_SINGLE_FILE: ClassVar[bool] = False

    def __init__(
        self,
        *,
        file_format: str | None = None,
        settings: BuildSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialise the builder.

        Args:
          file_format: None or array_record, the only format that training reads.
          settings: settings of the build; None: the defaults.
          **kwargs: arguments of the TFDS builder.
        """
        self.settings = settings or BuildSettings()
        super().__init__(file_format=file_format or "array_record", **kwargs)

    @abc.abstractmethod
    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Read what is in the raw data.

        Args:
          root: folder of the raw data, or their file with `ACCEPTS_SINGLE_FILE`; unused where the
            dataset has no raw data.
          scratch: an empty folder for intermediate files, removed after the build.
          processes: number of processes to use.

        Raises:
          InputError: the raw data are not of this dataset.
        """

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Build the dataset unless it exists; see TFDS."""
        if self.data_path.exists():
            return
        versions = Path(self.data_path).parent
        with staging.lock_staging(versions):
            super().download_and_prepare(**kwargs)
            # only after TFDS has moved the dataset to its place
            staging.remove_staging(staging.staging_dir(versions, str(self.version)))

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> None:
        """Fill `self._data_dir`, a temporary folder that TFDS renames, or removes on failure."""
        if self.info.file_format.value != "array_record":
            raise InputError(
                f"found the file format {self.info.file_format.value}, expected array_record, "
                "which is what training reads: leave --file_format out"
            )
        settings = self.settings
        processes = settings.processes or available_cores()
        unfinished = Path(self._data_dir)
        with staging.open_staging(unfinished, str(self.version)) as folder:
            root = Path()
            if self.MANUAL_DOWNLOAD_INSTRUCTIONS:
                root = settings.raw or Path(dl_manager.manual_dir)
            plan = self.plan(root, folder / staging.SCRATCH, processes)
            if not plan.bad_files:  # else their table explains more
                sizes = {name: len(rows) for name, rows in plan.items.items()}
                finalize.check_nonempty_splits(sizes, plan.notes)
            facts = {
                "dataset": self.info.full_name,
                "options": self.builder_config.options(),
                "features": str(self.info.features),
                "order": settings.order_seed,
                "version": sar_mixmae_jax.__version__,
            }
            staging.remove_shards_of_other_plan(folder, plan_fingerprint(plan, facts))
            tasks = make_shard_tasks(plan, folder, self.info.features, settings.order_seed)
            remove_stale_shards(tasks, processes)
            written = write_missing_shards(tasks, processes, download_config)
            bad_files = [*plan.bad_files, *(f for shard in written for f in shard.report.bad_files)]
            counts = {**dict.fromkeys(plan.items, 0), **finalize.count_records(written)}
            if bad_files and not (settings.skip_bad and all(counts.values())):
                for shard in written:
                    if shard.report.bad_files:  # the next build reads repaired files
                        shards.remove_shard(shard.task)
                _print_bad_files(bad_files, folder)
            if bad_files and not settings.skip_bad:
                raise BadFilesError(bad_files)
            finalize.check_nonempty_splits(counts, plan.notes)
            verify_shards(written, processes)
            finalize.set_metadata(self, plan, written, bad_files, settings.order_seed)
            finalize.link_shards(self, written, bad_files, plan.unused_files, unfinished)


def remove_stale_shards(tasks: Sequence[ShardTask], processes: int) -> None:
    """Remove shards of an earlier build that have bad files, or whose raw files have changed."""
    complete = [task for task in tasks if shards.read_report(task)]
    run = partial(process_pool.run_tasks, processes=processes, total=len(complete), unit="shards")
    stale = sum(run(_remove_if_stale, complete, description="checking raw files"))
    if complete:
        print(
            f"{len(complete) - stale} of {len(tasks)} shards are complete already", file=sys.stderr
        )


def _remove_if_stale(task: ShardTask, tick: Tick) -> bool:
    tick()
    report = shards.read_report(task)
    stale = (
        report is None or bool(report.bad_files) or report.source_stamp != shards.source_stamp(task)
    )
    if stale:
        shards.remove_shard(task)
    return stale


def write_missing_shards(
    tasks: Sequence[ShardTask], processes: int, config: tfds.download.DownloadConfig | None
) -> list[WrittenShard]:
    """Write the shards that are not complete yet.

    Args:
      tasks: all shards.
      processes: number of processes.
      config: with a Beam runner or options, Beam writes the shards instead of processes.

    Returns:
      All shards.

    Raises:
      InputError: a shard is gone after it was written.
    """
    missing = [task for task in tasks if shards.read_report(task) is None]
    if config and (config.beam_runner or config.beam_options):
        process_pool.run_with_beam(
            shards.write_shard, missing, runner=config.beam_runner, options=config.beam_options
        )
    else:
        total = sum(len(task.items) for task in missing)
        for _ in process_pool.run_tasks(
            shards.write_shard, missing, processes=processes, total=total, description="building"
        ):
            pass
    written = []
    for task in tasks:
        report = shards.read_report(task)
        if report is None:
            raise InputError(
                f"{task.path}: found no such shard after it was written: give the command again"
            )
        written.append(WrittenShard(task, report))
    return written


def _print_bad_files(bad_files: Sequence[BadFile], folder: Path) -> None:
    print(bad_files_table(bad_files, TABLE_ROWS), file=sys.stderr)
    if len(bad_files) > TABLE_ROWS:
        write_table(bad_files, folder / finalize.BAD_FILES)
        print(f"all of them: {folder / finalize.BAD_FILES}", file=sys.stderr)


def verify_shards(written: Sequence[WrittenShard], processes: int) -> None:
    """Read all shards back and remove those that differ from what was written.

    Raises:
      InputError: at least one differs.
    """
    errors = process_pool.run_tasks(
        _verify_or_remove,
        [shard.task for shard in written],
        processes=processes,
        total=sum(shard.report.records for shard in written),
        description="verifying",
    )
    wrong = [error for error in errors if error]
    if wrong:
        raise InputError(
            f"{wrong[0]} (in all, {len(wrong)} of {len(written)} shards): check the disk, then "
            "give the same command again, which writes only what is missing"
        )


def _verify_or_remove(task: ShardTask, tick: Tick) -> str | None:
    report = shards.read_report(task)
    error = shards.verify_shard(task, report, tick) if report else "its report is gone"
    if error:
        shards.remove_shard(task)
        return f"{task.path}: {error}"
    return None
