"""Which of the places that are there already a wheel is tried in."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from vllm_wheels.commands import set_up
from vllm_wheels.core.builders.container import ContainerBuilder
from vllm_wheels.core.builders.image import Image, kinds, ready_image, recipe
from vllm_wheels.core.engine.builder import Command
from vllm_wheels.core.errors import EngineUnreachableError, ImageError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify import places as ready
from vllm_wheels.core.verify.places import Places

NEWER = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_39_x86_64.whl"
PORTABLE = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_x86_64.whl"
OLD = "vllm_cpu-0.16.0-cp311-abi3-manylinux2014_x86_64.whl"
PLAIN = "vllm_cpu-0.32.0-cp311-abi3-linux_x86_64.whl"
NOWHERE = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_99_x86_64.whl"
FOREIGN = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_aarch64.whl"


@pytest.fixture
def there(monkeypatch):
    """The images that the engine has; none until a test says so."""
    kinds: list[str] = []

    def found(kind):
        made = Image(name=kind, id=kind, kind=kind, reference="", digest=None, pythons=())
        return made if kind in kinds else None

    monkeypatch.setattr(ready, "ready_image", found)
    return kinds


def builder(folder, wheel, *, configured="manylinux", kind="auto"):
    settings = Settings(state_folder=folder / "state", builder={"image": configured, "kind": kind})
    return Places(settings=settings, runner=Runner()).builder(folder / wheel)


@pytest.mark.parametrize(
    ("wheel", "images", "configured", "taken"),
    [
        (NEWER, ["debian"], "manylinux", "debian"),
        (NEWER, ["manylinux", "debian"], "manylinux", "debian"),
        (PORTABLE, ["manylinux", "debian"], "manylinux", "manylinux"),
        (PORTABLE, ["manylinux", "debian"], "debian", "debian"),
        (PORTABLE, ["debian"], "manylinux", "debian"),
        (OLD, ["debian"], "manylinux", "debian"),
        (PLAIN, ["manylinux", "debian"], "debian", "debian"),
    ],
)
def test_image_that_runs_the_wheel_is_taken(tmp_path, *, there, wheel, images, configured, taken):
    """I need not configure the image that a wheel was built in, if one that runs it is there."""
    there.extend(images)
    assert builder(tmp_path, wheel, configured=configured).name == f"container ({taken})"


@pytest.mark.parametrize("wheel", [PORTABLE, PLAIN])
def test_image_of_the_provenance_comes_first(tmp_path, there, wheel):
    """A wheel that says what built it is tried there."""
    there.extend(["manylinux", "debian"])
    statement = {"wheel": wheel, "builder": {"kind": "container", "image": "debian"}}
    (tmp_path / wheel.replace(".whl", ".provenance.json")).write_text(json.dumps(statement))
    assert builder(tmp_path, wheel).name == "container (debian)"


@pytest.mark.parametrize(
    ("wheel", "images", "remedy"),
    [
        (NEWER, ["manylinux"], "vllm-wheels set-up --image debian"),
        (PORTABLE, [], "vllm-wheels set-up --image manylinux"),
        (PLAIN, ["debian"], "vllm-wheels set-up --image manylinux"),
        (NOWHERE, ["manylinux", "debian"], "verify it on a machine of its platform, or with --no-install"),
        (FOREIGN, ["manylinux", "debian"], "verify it on a machine of its platform, or with --no-install"),
    ],
)
def test_missing_image_is_named_with_the_command_that_makes_it(tmp_path, there, wheel, images, remedy):
    """Where nothing that is there runs the wheel, one line tells me what to type."""
    there.extend(images)
    with pytest.raises(ImageError) as caught:
        builder(tmp_path, wheel)
    assert caught.value.remedy == remedy


def test_obstacle_names_what_is_in_the_way(tmp_path, there):
    """What cannot be tried here is told in one line, and is no error."""
    places = Places(settings=Settings(state_folder=tmp_path), runner=Runner())
    assert "there is none yet of kind debian" in str(places.obstacle(tmp_path / NEWER, "3.11"))


@pytest.mark.parametrize("kind", ["auto", "container"])
def test_silent_engine_leaves_this_host(tmp_path, monkeypatch, kind):
    """Without an engine a wheel is tried on this host, unless I insist on containers."""

    def silent(_):
        what = "no engine answers"
        raise EngineUnreachableError(what, why="a test", remedy="start it")

    monkeypatch.setattr(ready, "ready_image", silent)
    if kind == "auto":
        assert builder(tmp_path, PLAIN).name == "local"
    else:
        with pytest.raises(EngineUnreachableError):
            builder(tmp_path, PLAIN, kind=kind)


def test_set_up_makes_the_image_that_is_named(monkeypatch):
    """The command that the message names makes that image, whatever image is configured."""
    wanted = []

    def make(settings, _):
        wanted.append(settings.builder.image)
        return Image(name="made", id="1", kind="debian", reference="Debian trixie", digest=None, pythons=())

    monkeypatch.setattr(set_up, "set_up", lambda *_: None)
    monkeypatch.setattr(set_up, "ensure_image", make)
    done = CliRunner().invoke(set_up.command, ["--image", "debian"])
    assert (done.exit_code, wanted) == (0, ["debian"])
    assert "image made is there" in done.output


@pytest.mark.container
@pytest.mark.parametrize("kind", kinds())
def test_image_has_the_glibc_that_is_claimed_for_it(tmp_path, kind):
    """The table of images tells the truth about what they run."""
    found = ready_image(kind)
    if found is None:
        pytest.skip(f"the engine has no image of kind {kind}")
    lines = []
    command = Command(argv=["getconf", "GNU_LIBC_VERSION"], env={}, cwd="/", mounts=())
    ContainerBuilder(image=found, notes=tmp_path).run(command, timeout_seconds=60, on_line=lines.append)
    assert lines == [f"glibc {recipe(kind).entry['glibc']}"]
