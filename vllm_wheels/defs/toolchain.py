"""The observed toolchain: the compiler and image that this installation builds with."""

import warnings

import dagster as dg

from vllm_wheels.core.plan import fingerprint

with warnings.catch_warnings():
    # Observable source assets are beta in 1.13; dagster.md records that they hold, and the version is pinned.
    warnings.simplefilter("ignore", dg.BetaWarning)

    from vllm_wheels.defs.resources import BuildOptions

    @dg.observable_source_asset(
        name="toolchain",
        group_name="shared",
        description="Compiler, C library and image of the builder; changes make wheels stale",
    )
    def toolchain(context: dg.OpExecutionContext, build_options: BuildOptions) -> dg.DataVersion:
        """Hash of the builder's identity."""
        workshop = build_options.workshop(say=context.log.info)
        return dg.DataVersion(fingerprint(dict(workshop.builder.identity())))
