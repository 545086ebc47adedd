"""The flags that make several processes one run; clusters tell them without flags."""

from absl import flags

from sar_mixmae_jax import processes

COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "host:port of the first of several processes; clusters tell it"
)
PROCESSES = flags.DEFINE_integer("num_processes", None, "how many processes there are")
PROCESS = flags.DEFINE_integer("process_id", None, "which one this is, from 0")


def start() -> None:
    """Starts what the flags say, see `processes.start`."""
    processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
