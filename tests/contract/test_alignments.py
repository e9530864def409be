"""Every `conf/alignment/*.yaml` is built and held to every check of `alignment_checks`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from contract.alignment_checks import CHECKS, Build
from contract.alignment_inputs import IMAGE, TEXT
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mmlit.contracts import Alignment

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "conf" / "alignment").glob("*.yaml"))


def build(file: Path) -> Alignment:
    """The alignment that a yaml file describes, for two encoders of different widths."""
    alignment = instantiate(OmegaConf.load(file), image=IMAGE, text=TEXT)
    assert isinstance(alignment, Alignment)
    return alignment


def test_found_as_many_as_there_are_files() -> None:
    """One module, one yaml and one test of each stem: none without the other two."""
    stems = {file.stem for file in FILES}
    modules = {file.stem for file in (ROOT / "mmlit" / "alignments").glob("*.py")} - {"__init__"}
    tests = {file.stem.removeprefix("test_") for file in (ROOT / "tests" / "alignments").glob("test_*.py")}
    assert len(FILES) == len(list((ROOT / "conf" / "alignment").iterdir())) >= 4
    assert stems == modules == tests
    for file in FILES:
        assert OmegaConf.load(file)["_target_"].startswith(f"mmlit.alignments.{file.stem}.")


def test_every_check_is_found() -> None:
    source = (Path(__file__).parent / "alignment_checks.py").read_text(encoding="utf-8")
    assert len(CHECKS) == source.count("\ndef check_") > 0


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_contract(file: Path, check: Callable[[Build], None]) -> None:
    check(lambda: build(file))
