"""The rules of the layout: imports point one way; files, functions and folders stay small; names are unique."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sspyr_mm"

BASE = {"version", "compat", "files", "machine", "pyramid", "views", "tensor_files", "health"}
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
    "health": set(),
    "views": set(),
    "tensor_files": {"files"},
    "pyramid": {"views"},
    **dict.fromkeys(PARTS, BASE),
    **dict.fromkeys(BLOCKS, BASE | PARTS),
    "models.selfsup": BASE | PARTS | BLOCKS,
    "models": BASE | PARTS | BLOCKS | {"models.selfsup"},
    "datasets": BASE,
    "engine": BASE | MODELS | {"datasets"},
    "registration": BASE | {"models", "datasets", "engine", "evaluation", "probes", "reports"},
    "checkpoints": BASE | MODELS | {"registration"},
    "evaluation": BASE,
    "reports": BASE | MODELS | {"datasets", "engine"},
    "speed": BASE | MODELS | {"datasets", "engine", "registration"},
    "features": BASE | {"models.layers", "datasets"},
    "probes": BASE | {"models", "models.layers", "datasets", "engine", "evaluation", "features"},
    "benchmarks": BASE
    | {"models.layers", "datasets", "engine", "registration", "checkpoints", "evaluation", "features", "probes"},
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
        "features",
        "probes",
    },
    "__init__": BASE | {"registration"},
    "__main__": BASE | {"cli"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if ".mim" not in path.parts)


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


def test_import_rule_rejects_a_wrong_direction():
    assert part_of("models.losses.cross_scale_loss") == "models.losses"
    assert "models.heads" not in ALLOWED["models.losses"]
    assert "models" not in ALLOWED["datasets"]


FOLDERS = sorted({path.parent for path in FILES})
COMMANDS = PACKAGE / "cli"  # a module per command, named like the room that does its work


def test_files_hold_at_most_300_lines():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: lines for name, lines in long.items() if lines > 300}


def code_lines(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    return lines - len((ast.get_docstring(function, clean=False) or "").splitlines())


def test_functions_hold_at_most_50_lines():
    long = {
        f"{path.relative_to(ROOT)}::{node.name}": code_lines(node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert not {name: lines for name, lines in long.items() if lines > 50}


def test_folders_hold_at_most_eight_files():
    sizes = {
        str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) - 1 for folder in FOLDERS if folder != COMMANDS
    }
    assert not {name: size for name, size in sizes.items() if size > 8}


def test_file_names_are_unique():
    names = Counter(path.name for path in FILES if path.name != "__init__.py" and path.parent != COMMANDS)
    assert not [name for name, count in names.items() if count > 1]


def test_packages_list_what_they_import():
    for path in FILES:
        if path.name != "__init__.py" or COMMANDS in path.parents:
            continue
        tree = ast.parse(path.read_text())
        names = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sspyr_mm")
            for alias in node.names
        } - {"quiet_imports"}
        (listed,) = [
            {ast.literal_eval(element) for element in node.value.elts}
            for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
        ] or [set()]
        assert names <= listed, f"{path}: {sorted(names - listed)} not in __all__"
