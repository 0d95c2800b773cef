"""The bodies of the assets: make or plan an artifact and report it; imported by a step, not by the definitions."""

from __future__ import annotations

import atexit
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.engine.rendering import as_json, as_markdown, document
from vllm_wheels.core.engine.store import Artifact
from vllm_wheels.core.errors import VerificationError, VllmWheelsError
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.host.system_errors import of_system
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.operations.delivery import deliver, deliver_open
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify.gate import OpenVerdictError, require_unconvicted
from vllm_wheels.core.verify.report import Report, read_report
from vllm_wheels.defs import abandoned, checks, internals, publishing, report
from vllm_wheels.defs.keys import JOB, JUDGED, RELEASE, key, needs, observed_key
from vllm_wheels.defs.resources import BuildMode, BuildOptions
from vllm_wheels.defs.tags import AUTOMATIC


def carry_out(
    context: dg.AssetExecutionContext, kind: str, variant: str | None, *, mode: BuildMode, options: BuildOptions
) -> Iterator[dg.MaterializeResult[None]]:
    """Makes or plans the artifact of a step; an error of the tree ends the step with three lines."""
    abandoned.sign(context)
    with plain_failures(say_last=not context.job_name.startswith(JOB)):
        target = Target.parse(context.partition_key, variant)
        recorder, by_itself = Recorder(context, key(kind, variant)), AUTOMATIC in context.run.tags
        builds = options.builds(say=context.log.info, on_artifact=recorder, automatic=by_itself)
        if mode.dry_run:
            yield planned(context, builds, kind, target)
            return
        result = judged(context, builds, target) if kind == JUDGED else made(builds, kind, target)
        internals.refresh_inputs(context)
        # Whoever asks for a check alone selects no asset.
        if result and key(kind, variant) in context.selected_asset_keys:
            yield result


def made(builds: BuildGraph, kind: str, target: Target) -> dg.MaterializeResult[None]:
    """Makes an artifact and reports it."""
    if kind == RELEASE:
        return publishing.published(builds, target, key(kind, target.variant))
    artifact = builds.ensure(kind, target)
    if rules()[kind].sidecars:
        deliver(builds, kind, target)
    return _result(artifact, target)


def judged(context: dg.AssetExecutionContext, builds: BuildGraph, target: Target) -> dg.MaterializeResult[None] | None:
    """Verifies a wheel and records each finding; only a wheel that has passed is materialized.

    Returns:
        Nothing where something could not be judged: the run goes on, the release does not.

    Raises:
        VerificationError: the wheel is convicted.
    """
    try:
        artifact = builds.ensure(JUDGED, target)
    except OpenVerdictError as error:
        deliver_open(builds, target, error.report)
        _record_findings(context, error.report, target)
        context.log.warning("could-not-judge: %s", error)
        return None
    deliver(builds, JUDGED, target)
    found = read_report(artifact.folder)
    _record_findings(context, found, target)
    try:
        require_unconvicted(found)
    except VerificationError as error:
        builds.failures.note(JUDGED, target, artifact.key, error, convicted=True)
        raise
    return _result(artifact, target)


def _record_findings(context: dg.AssetExecutionContext, found: Report, target: Target) -> None:
    for evaluation in checks.evaluations(found, key(JUDGED, target.variant), context.partition_key):
        context.log_event(evaluation)
    for check, reason in checks.skipped(found):
        context.log.info("skipped: %s: %s", check, reason)


def _result(artifact: Artifact, target: Target) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        asset_key=key(artifact.kind, target.variant),
        data_version=dg.DataVersion(artifact.version),
        metadata=report.metadata(artifact),
    )


def planned(
    context: dg.AssetExecutionContext, builds: BuildGraph, kind: str, target: Target
) -> dg.MaterializeResult[None]:
    """Logs what a real run would do; the result counts as an observation, so that nothing is recorded as built."""
    shown = document(builds, JUDGED if kind == RELEASE else kind, target)
    text = as_markdown(shown)
    if kind == RELEASE:
        text += publishing.plan_text(builds.settings, target)
    own = key(kind, target.variant)
    path = builds.settings.state_folder / "plans" / context.run.run_id / f"{'-'.join(own.path)}.json"
    write_atomically(path, json.dumps(as_json(shown), indent=1))
    context.log.info(text)
    # The metadata stay with the run's output event; as an observation, the result touches no asset.
    metadata = {internals.OBSERVATION: dg.MetadataValue.bool(True), **report.plan(text, path)}
    return dg.MaterializeResult(asset_key=own, metadata=metadata)


@contextmanager
def plain_failures(*, say_last: bool) -> Iterator[None]:
    """Ends a step with an error's three lines in place of a traceback.

    With ``say_last`` the process ends with them too, for Dagster's own commands print below them the stack of the step.
    """
    try:
        yield
    except (VllmWheelsError, OSError) as caught:
        error = of_system(caught) if isinstance(caught, OSError) else caught
        if say_last:
            atexit.register(print, f"\nerror: {error}", file=sys.stderr)
        details = {name: getattr(error, name) for name in ("what", "why", "remedy", "exit_code")}
        raise dg.Failure(description=str(error), metadata=details, allow_retries=False) from None


@dataclass
class Recorder:
    """Tells Dagster of artifacts that a step makes or finds besides its own, and of inputs that they were made from."""

    context: dg.AssetExecutionContext
    own: dg.AssetKey

    def __call__(self, target: Target, artifact: Artifact, made_now: bool) -> None:  # noqa: FBT001 - the core calls it so
        """Records an artifact, unless it is the step's own or the instance knows it, made from these inputs.

        A report that convicts makes no verification: its own step says so.
        """
        moved = self._observe(target, artifact)
        asset = key(artifact.kind, target.variant)
        if asset == self.own or (artifact.kind == JUDGED and artifact.facts["verdict"] != "passed"):
            return
        instance, partition = self.context.instance, self.context.partition_key
        known = internals.latest_data_version(instance, asset, partition)
        if known == artifact.version and not made_now and not moved:
            return
        code = rules()[artifact.kind].code_version(target.variant)
        versions = internals.version_tags(data=artifact.version, code=code)
        provenance = internals.provenance_tags(instance, needs(artifact.kind, target.variant), partition)
        self.context.log_event(
            dg.AssetMaterialization(
                asset_key=asset,
                partition=partition,
                metadata=report.metadata(artifact),
                tags={**versions, **provenance},
            )
        )

    def _observe(self, target: Target, artifact: Artifact) -> bool:
        asset = observed_key(rules()[artifact.kind], target.variant)
        if asset is None:
            return False
        partition = self.context.partition_key
        if internals.latest_data_version(self.context.instance, asset, partition, observed=True) == artifact.outside:
            return False
        tags = internals.version_tags(data=artifact.outside)
        self.context.log_event(dg.AssetObservation(asset_key=asset, partition=partition, tags=tags))
        return True
