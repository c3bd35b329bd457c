"""The cluster that TF_CONFIG describes, checked before TensorFlow waits for it.

Imports no TensorFlow, so that mistakes are told at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re

from gdfq_tf.errors import UserError, option

# Jobs whose tasks train; of the others TensorFlow knows, none has work here.
_JOBS = ("chief", "worker")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/]+):(\d+)")
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Task:
    """One process of a cluster.

    Attributes:
      job: "chief" or "worker".
      index: among those of its job.
      cluster: job -> addresses "host:port" of its tasks.
    """

    job: str
    index: int
    cluster: dict[str, list[str]]

    @property
    def num_workers(self) -> int:
        """Processes of the whole cluster."""
        return sum(map(len, self.cluster.values()))

    @property
    def is_chief(self) -> bool:
        """Whether it is the one that writes: the chief, or without one worker 0."""
        return (self.job, self.index) == (
            "chief" if "chief" in self.cluster else "worker",
            0,
        )

    @property
    def name(self) -> str:
        """Of this process, for messages."""
        return f"{self.job} {self.index} of {self.num_workers} processes"


def this_task() -> Task:
    """What the environment variable TF_CONFIG says of this process.

    Raises:
      UserError: it is not set, or is none of TensorFlow's form.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise _refusal("TF_CONFIG is not set")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _refusal(f"TF_CONFIG is no JSON ({error}): {text!r}") from error
    if not isinstance(config, dict):
        raise _refusal(f"TF_CONFIG is no JSON object: {text!r}")
    cluster = _cluster(config.get("cluster"))
    task = config.get("task")
    if not isinstance(task, dict) or not {"type", "index"} <= task.keys():
        raise _refusal(f"TF_CONFIG has no task with type and index: {text!r}")
    job, index = task["type"], task["index"]
    if job not in cluster:
        raise _refusal(
            f"TF_CONFIG's task type {job!r} is none of its cluster's, "
            f"{' and '.join(cluster)}"
        )
    count = len(cluster[job])
    if type(index) is not int or not 0 <= index < count:
        raise _refusal(
            f"TF_CONFIG's task index {index!r} is none of its {count} {job} addresses; "
            f"expected a number from 0 to {count - 1}"
        )
    return Task(job, index, cluster)


def writes(distribution: str) -> bool:
    """Whether this process is the one that writes.

    Args:
      distribution: see `strategies.make_strategy`.

    Raises:
      UserError: see `this_task`.
    """
    return distribution != "multi_worker" or this_task().is_chief


def _cluster(value: object) -> dict[str, list[str]]:
    if not isinstance(value, dict) or not value:
        raise _refusal(f"TF_CONFIG has no cluster, but {value!r}")
    for job, addresses in value.items():
        if job not in _JOBS:
            raise _refusal(
                f"TF_CONFIG's cluster has the job {job!r}; expected chief and worker "
                "alone"
            )
        if not isinstance(addresses, list) or not addresses:
            raise _refusal(
                f"TF_CONFIG's cluster has no list of addresses for {job!r}, but "
                f"{addresses!r}"
            )
    everywhere = [address for addresses in value.values() for address in addresses]
    for address in everywhere:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise _refusal(f"TF_CONFIG's address {address!r} is no host:port")
        if everywhere.count(address) > 1:
            raise _refusal(f"TF_CONFIG's address {address!r} is there twice")
    if len(value.get("chief", ())) > 1:
        raise _refusal("TF_CONFIG's cluster has several chiefs")
    return value


def _refusal(what: str) -> UserError:
    return UserError(
        f"{what}; {option('distribution', 'multi_worker')} takes a TF_CONFIG such as "
        f"{_EXAMPLE}, the same in every process but for the task's index"
    )
