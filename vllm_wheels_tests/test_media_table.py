"""Which models need torchvision or torchaudio, read out of the sources of vLLM and transformers."""

from __future__ import annotations

import pytest

from benchmarks.media_table import Need, Sources, fetched, on_import, on_use, registered, tables, updated
from vllm_wheels.core.settings import load
from vllm_wheels_tests.core.small_wheels import write_files
from vllm_wheels_tests.docs.pages import ROOT, Page

PAGE = ROOT / "docs/torchvision-torchaudio.md"

REGISTRY = """\
_TEXT_GENERATION_MODELS = {"Reads": ("reads", "Reads")}
_MULTIMODAL_MODELS = {
    "Sees": ("sees", "Sees"),
    "Inherits": ("inherits", "Inherits"),
    "Asks": ("asks", "Asks"),
    "Watches": ("watches", "Watches"),
    "Hears": ("vllm.models.hears", "Hears"),
}
_PREVIOUSLY_SUPPORTED_MODELS = {"Gone": "0.1"}
"""

VLLM = {
    "vllm/model_executor/models/registry.py": REGISTRY,
    "vllm/model_executor/models/reads.py": "import torch\n",
    "vllm/model_executor/models/sees.py": "from torchvision.transforms import v2\n",
    "vllm/model_executor/models/inherits.py": "from .sees import Sees\n",
    "vllm/model_executor/models/asks.py": "from transformers.models.eye.image_processing_eye import smart_resize\n",
    "vllm/model_executor/models/watches.py": "from transformers import EyeProcessor\n",
    "vllm/models/hears/__init__.py": "from vllm.transformers_utils.processors import EarProcessor\n",
    "vllm/transformers_utils/processors/__init__.py": """\
_CLASS_TO_MODULE: dict[str, str] = {
    "EarProcessor": "vllm.transformers_utils.processors.ear",
    "NoseProcessor": "vllm.transformers_utils.processors.nose",
}
""",
    "vllm/transformers_utils/processors/ear.py": """\
try:
    import torchaudio
except ImportError:
    torchaudio = None


def late():
    import torchvision
""",
    "vllm/transformers_utils/processors/nose.py": "import torchvision.transforms as T\n",
}

EYE = "transformers/models/eye"
TRANSFORMERS = {
    "transformers/__init__.py": "",
    f"{EYE}/__init__.py": "",
    f"{EYE}/processing_eye.py": 'class EyeProcessor(ProcessorMixin): ...\n__all__ = ["EyeProcessor"]\n',
    f"{EYE}/image_processing_eye.py": "import torchvision\n\n\nclass EyeImageProcessor(TorchvisionBackend): ...\n",
    f"{EYE}/image_processing_pil_eye.py": "class EyeImageProcessorPil(PilBackend): ...\n",
    f"{EYE}/video_processing_eye.py": "class EyeVideoProcessor(BaseVideoProcessor): ...\n",
}


@pytest.fixture
def sources(tmp_path) -> Sources:
    return Sources(write_files(tmp_path / "v", VLLM), write_files(tmp_path / "t", TRANSFORMERS))


def imported(sources: Sources, model: str) -> set[Need]:
    (found,) = [each for each in registered(sources) if each.name == model]
    return set(on_import(sources, found.module))


def test_registry_is_read_without_importing_it(sources):
    """All architectures are found in their modules; those of the past are not models."""
    found = {each.name: each.module for each in registered(sources)}
    assert found["Hears"] == "vllm.models.hears"
    assert set(found) == {"Reads", "Sees", "Inherits", "Asks", "Watches", "Hears"}


@pytest.mark.parametrize(
    ("model", "file", "companion", "how"),
    [
        ("Sees", "vllm/model_executor/models/sees.py", "torchvision", "always"),
        ("Inherits", "vllm/model_executor/models/sees.py", "torchvision", "always"),
        ("Asks", f"{EYE}/image_processing_eye.py", "torchvision", "always"),
        ("Hears", "vllm/transformers_utils/processors/ear.py", "torchaudio", "if it is there"),
    ],
    ids=["itself", "through another model", "through a file of transformers", "if it is there"],
)
def test_import_is_followed_to_the_file_that_needs_it(sources, model, file, companion, how):
    """I see which file asks for torchvision, and whether my model can do without."""
    assert imported(sources, model) == {Need(companion, file, how)}


@pytest.mark.parametrize("model", ["Reads", "Watches"])
def test_model_that_loads_without_is_not_listed(sources, model):
    """A text model needs neither, nor does one whose processor is looked up later."""
    assert imported(sources, model) == set()


def test_processor_of_transformers_tells_what_it_needs_it_for(sources):
    """Images can be done without torchvision, videos cannot."""
    (watches,) = [each for each in registered(sources) if each.name == "Watches"]
    assert on_use(sources, watches) == {
        Need("torchvision", EYE, "images, else with PIL"),
        Need("torchvision", EYE, "videos"),
    }


def test_tables_name_models_and_processors_by_name(sources):
    """The page has a line for a processor that only a checkpoint names, and counts the models."""
    text = tables(sources, "vLLM 1, transformers 2")
    assert "3 models of the registry cannot be imported" in text
    assert "1 further models" in text
    assert "| checkpoints that name NoseProcessor |" in text


def test_page_is_changed_between_its_marks_only():
    """What a person wrote around the tables stays."""
    page = "a\n<!-- tables: begin -->\nold\n<!-- tables: end -->\nb\n"
    assert updated(page, "new") == page.replace("old", "new")


@pytest.mark.real
def test_media_tables_are_true(tmp_path):
    """The tables of the documentation are what the program derives from the real release, and from its transformers."""
    page = Page(PAGE).text
    assert updated(page, tables(*fetched(load(), tmp_path))) == page
