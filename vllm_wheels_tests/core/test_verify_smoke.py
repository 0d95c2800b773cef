"""The whole smoke path on this host: what passes, what is skipped, what is kept, and what a plan of it shows."""

from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify import planning as smoke
from vllm_wheels.core.verify.test_runs import TEST_RUNS
from vllm_wheels_tests.core.harness import TARGET, finding, no_builder


def test_good_wheel_passes_every_check(harness):
    """A wheel without defect passes everything, and the report is of exactly that file."""
    harness.vllm()
    report = harness.verify()
    assert {each.verdict for each in report.findings} == {"passed", "skipped"}
    assert [each.check for each in report.findings if each.verdict == "skipped"] == [
        "torch-companions",
        "guard-refuses",
        "runs-on-lowest-cpu",
        "emulated-amx",
    ]
    assert [each.check for each in report.findings] == [check.name for check in TEST_RUNS]
    assert report.sha256 == sha256_of(smoke.wheel_of(harness.root / "wheel"))
    assert harness.made.facts["verdict"] == "passed"
    assert harness.made.details["measures"]["tokens_per_second"] > 0


def test_only_report_and_log_are_kept(harness):
    """The environment of gigabytes is gone when the report is finished."""
    harness.vllm()
    harness.verify()
    assert sorted(path.name for path in (harness.root / "stage").iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
        "smoke.log",
    ]


def test_what_was_left_out_is_said_and_not_passed(harness):
    """Requirements that torch.packages leaves out are skipped by name, and nothing else is excused."""
    harness.vllm(requires=("torch==2.13.0", "torchvision", "torchcodec>=0.14"))
    report = harness.verify()
    assert finding(report, "complete").verdict == "skipped"
    assert "torchcodec, torchvision" in finding(report, "complete").line
    assert "torchcodec, torchvision (left out)" in finding(report, "requirements-agree").line
    assert report.verdict == "passed"


def test_generation_can_be_switched_off_but_is_not_called_passed(harness):
    """With smoke.generate off the report says that no token was generated."""
    harness.generate = False
    harness.vllm(generate="raise SystemExit")
    assert finding(harness.verify(), "generates-tokens").verdict == "skipped"


def test_plan_before_the_wheel_shows_every_check(harness):
    """A dry run on a fresh machine lists the checks, though there is no wheel yet."""
    settings = harness.settings()
    store = Store(settings.state_folder / "store")
    plan = smoke.plan(PlanContext(settings=settings, store=store, target=TARGET, known={}, find_builder=no_builder))
    assert {check.title for check in TEST_RUNS} < {step.title for step in plan.steps}


def test_fingerprint_follows_wheel_python_and_settings(harness):
    """Another wheel, Python, setting or missing package is verified anew, the same again is not."""
    harness.vllm()
    first = harness.plan().key
    assert harness.plan().key == first
    others = {
        harness.plan(Target(release="0.32.0", python="3.13")).key,
        harness.plan(unavailable=["torchaudio"]).key,
    }
    harness.generate = False
    others.add(harness.plan().key)
    harness.generate = True
    harness.vllm(version="print('0.32.0')")
    others.add(harness.plan().key)
    assert len({first, *others} - {None}) == 4
