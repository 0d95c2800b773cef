"""One partitions definition for every asset, so that a single run can make a whole chain (dagster.md, "Partitions").

A partition is a Python and a release that supports it; one that cannot be made is not there, so that nothing is missing
of a release that is complete.
"""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from vllm_wheels.core.operations.release_names import note

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
"""Every Python that some release of either family of source supports."""

NAME = "python_and_release"
PARTITION_TAG = "dagster/partition"
"""Tag of a run with the partition that it is about."""

PARTITIONS = dg.DynamicPartitionsDefinition(name=NAME)


def register(instance: dg.DagsterInstance, release: str, *pythons: str) -> bool:
    """Makes a release known to the instance on some Pythons; False if it already was on all of them."""
    known = set(every(instance))
    new = [partition for python in pythons if (partition := f"{python}|{release}") not in known]
    if new:
        instance.add_dynamic_partitions(NAME, new)
        registered(instance)
    return bool(new)


def every(instance: dg.DagsterInstance) -> list[str]:
    """Every partition that the instance knows, as key texts such as ``3.11|0.32.0``."""
    return list(instance.get_dynamic_partitions(NAME))


def registered(instance: dg.DagsterInstance) -> list[str]:
    """The releases that the instance knows; they are noted for the tab key, which cannot wait for Dagster."""
    found = list(dict.fromkeys(partition.partition("|")[2] for partition in every(instance)))
    home = os.environ.get("DAGSTER_HOME")
    if home and not instance.is_ephemeral:
        note(Path(home), found)
    return found


def unregister(instance: dg.DagsterInstance, release: str) -> bool:
    """Makes the instance forget a release; False if it did not know it."""
    known = [partition for partition in every(instance) if partition.partition("|")[2] == release]
    for partition in known:
        instance.delete_dynamic_partition(NAME, partition)
    registered(instance)
    return bool(known)
