"""Imports point one way, and files stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sspyr_mm"

BASE = {"version", "compat", "files", "machine", "pyramid"}
PARTS = {"models.layers", "models.assigners", "models.losses", "models.state_check"}
BLOCKS = {"models.necks", "models.heads", "models.data_preprocessors"}
MODELS = {"models", "models.selfsup"} | PARTS | BLOCKS
# Part of the package -> what it may import besides itself.
ALLOWED = {
    "version": set(),
    "compat": set(),
    "files": set(),
    "models.state_check": {"files"},
    "machine": set(),
    "pyramid": set(),
    **dict.fromkeys(PARTS, BASE),
    **dict.fromkeys(BLOCKS, BASE | PARTS),
    "models.selfsup": BASE | PARTS | BLOCKS,
    "models": BASE | PARTS | BLOCKS | {"models.selfsup"},
    "datasets": BASE,
    "engine": BASE | MODELS | {"datasets"},
    "registration": BASE | {"models", "datasets", "engine", "evaluation"},
    "checkpoints": BASE | MODELS | {"registration"},
    "evaluation": BASE,
    "reports": BASE | MODELS | {"datasets"},
    "speed": BASE | MODELS | {"datasets", "engine", "registration"},
    "benchmarks": BASE
    | {"models.layers", "datasets", "engine", "registration", "checkpoints", "evaluation"},
    "cli": BASE
    | {
        "models",
        "datasets",
        "engine",
        "registration",
        "checkpoints",
        "evaluation",
        "reports",
        "benchmarks",
        "speed",
    },
    "__init__": BASE | {"registration"},
    "__main__": BASE | {"cli"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(module):
    """The entry of ALLOWED a module (without the package's name) belongs to."""
    names = module.split(".")
    two = ".".join(names[:2])
    return two if two in ALLOWED else names[0]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import module` names a module, too.
            yield from (
                f"{node.module}.{alias.name}"
                if (ROOT / node.module.replace(".", "/") / f"{alias.name}.py").is_file()
                or (ROOT / node.module.replace(".", "/") / alias.name).is_dir()
                else node.module
                for alias in node.names
            )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    part = part_of(module.removesuffix(".__init__"))
    for name in imported(path):
        head, _, rest = name.partition(".")
        assert head not in ("tools", "configs", "tests"), f"{path} imports {name}"
        if head == PACKAGE.name and rest:
            target = part_of(rest)
            assert target == part or target in ALLOWED[part], f"{path} imports {name}"


def test_the_rule_can_fail():
    assert part_of("models.losses.cross_scale_loss") == "models.losses"
    assert "models.heads" not in ALLOWED["models.losses"]
    assert "models" not in ALLOWED["datasets"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 350
