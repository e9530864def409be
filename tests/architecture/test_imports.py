"""Which room may import which: the arrows of docs/architecture.md, read off the source files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mmlit"

#: from the bottom; rooms on one level never import each other
LEVELS = [
    {"contracts"},
    {"losses", "layers"},
    {"image_encoders", "text_encoders", "alignments", "auxiliaries", "data", "features", "evaluation", "results"},
    {"training", "jobs", "configuration"},
    {"model"},
    {"run", "cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_a_level():
    assert {room(path) for path in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_arrows_point_down(path):
    own = room(path)
    for name in imports(path):
        if not name.startswith("mmlit.") or own in {"__init__", "run", "cli"}:
            continue
        other = name.split(".")[1]
        assert other == own or LEVEL[other] < LEVEL[own], f"{path.name} ({own}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_frameworks_stay_in_their_rooms(path):
    tops = {name.partition(".")[0] for name in imports(path)}
    where = path.relative_to(PACKAGE).as_posix()
    if not (where.startswith(("training/", "run/")) or where == "data/datamodule.py"):
        assert "lightning" not in tops
    if not (where.startswith("run/") or where == "cli.py"):
        assert not tops & {"hydra", "omegaconf"}
    if where == "contracts.py":
        assert not tops - set(sys.stdlib_module_names) - {"torch"}
    if where.startswith(("results/", "jobs/", "configuration/", "data/scenes/", "data/download/")):
        assert not tops & {"torch", "lightning"}


def test_alignments_do_not_talk_to_other_devices():
    """DDP lives once, in training/."""
    for folder in ("alignments", "auxiliaries", "losses", "layers"):
        for path in (PACKAGE / folder).glob("*.py"):
            assert not any("distributed" in name for name in imports(path)), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_sizes_and_habits(path):
    text, tree = path.read_text(), ast.parse(path.read_text())
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: assert outside tests"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 70, f"{path}:{node.lineno}: {node.name} is long"


def test_no_room_for_leftovers():
    assert not [
        path for path in FILES if path.stem in {"utils", "common", "base", "helpers", "misc", "registry", "factory"}
    ]


def test_an_axis_is_a_group_a_package_and_a_test_folder():
    packages = {
        "alignment": "alignments",
        "image_encoder": "image_encoders",
        "text_encoder": "text_encoders",
        "data": "data",
        "auxiliary": "auxiliaries",
    }
    for group, package in packages.items():
        assert (ROOT / "conf" / group).is_dir()
        assert (PACKAGE / package).is_dir()
        assert (ROOT / "tests" / package).is_dir()
    for group, package in (("alignment", "alignments"), ("auxiliary", "auxiliaries")):
        for yaml in (ROOT / "conf" / group).glob("*.yaml"):
            assert (PACKAGE / package / f"{yaml.stem}.py").is_file()
            assert (ROOT / "tests" / package / f"test_{yaml.stem}.py").is_file()
        for module in (PACKAGE / package).glob("[a-z]*.py"):
            assert (ROOT / "conf" / group / f"{module.stem}.yaml").is_file()


def test_commands_without_torch_do_not_import_it():
    code = (
        "import sys; from mmlit.cli import main\n"
        "try: main(['compare', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'lightning', 'hydra', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_the_lock_names_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock


def test_compromised_releases_are_refused():
    """Trap 37: lightning 2.6.2 and 2.6.3."""
    text = (ROOT / "pyproject.toml").read_text()
    assert "!=2.6.2" in text
    assert "!=2.6.3" in text
    lock = (ROOT / "requirements.lock").read_text()
    assert "lightning==2.6.2" not in lock
    assert "lightning==2.6.3" not in lock
