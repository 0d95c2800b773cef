"""One partitions definition for every asset, so that a single run can make a whole chain (dagster.md, "Partitions")."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from vllm_wheels.core.operations.release_names import note

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
"""Every Python that some release of either family of source supports."""

DIMENSION = "release"
PARTITION_TAG = "dagster/partition"
"""Tag of a run with the partition that it is about."""

RELEASES = dg.DynamicPartitionsDefinition(name=DIMENSION)
PARTITIONS = dg.MultiPartitionsDefinition({"python": dg.StaticPartitionsDefinition(PYTHONS), DIMENSION: RELEASES})


def partition_key(text: str) -> dg.MultiPartitionKey:
    """The key of a text such as ``3.11|0.32.0``."""
    python, _, release = text.partition("|")
    return dg.MultiPartitionKey({"python": python, DIMENSION: release})


def register(instance: dg.DagsterInstance, release: str) -> bool:
    """Makes a release known to the instance; False if it already was."""
    new = release not in registered(instance)
    if new:
        instance.add_dynamic_partitions(DIMENSION, [release])
        registered(instance)
    return new


def registered(instance: dg.DagsterInstance) -> list[str]:
    """The releases that the instance knows; they are noted for the tab key, which cannot wait for Dagster."""
    found = list(instance.get_dynamic_partitions(DIMENSION))
    home = os.environ.get("DAGSTER_HOME")
    if home and not instance.is_ephemeral:
        note(Path(home), found)
    return found


def unregister(instance: dg.DagsterInstance, release: str) -> bool:
    """Makes the instance forget a release; False if it did not know it."""
    if not instance.has_dynamic_partition(DIMENSION, release):
        return False
    instance.delete_dynamic_partition(DIMENSION, release)
    registered(instance)
    return True
