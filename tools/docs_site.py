"""Hooks of MkDocs: pages that are outside of docs/, their links, the model zoo, and the reference of all settings."""

import posixpath
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from mmengine.fileio import load

ROOT = Path(__file__).parents[1]
_OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("configs/**/README.md")),
)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_REGISTERED = re.compile(r"@\w+\.register_module\([^)]*\)\nclass (\w+)")
_KINDS = {
    "Models": "models/selfsup",
    "Heads, losses and codes": "models/heads models/losses models/assigners",
    "Projectors": "models/necks",
    "Augmentation": "models/data_preprocessors",
    "Layers": "models/layers",
    "Data": "datasets",
    "Training": "engine probes reports",
    "Metrics": "evaluation",
}
_PYTHON = """
# Python

Functions that programs and notebooks call. Classes that configs name: [settings](settings.md).

::: sspyr_mm.checkpoints.read_backbone
::: sspyr_mm.checkpoints.build_backbone
::: sspyr_mm.checkpoints.load_pretraining
::: sspyr_mm.datasets.build_pretraining_dataset
::: sspyr_mm.datasets.labelled.read_labelled
::: sspyr_mm.features.extract_features
::: sspyr_mm.features.write_features
::: sspyr_mm.probes.linear_probe
::: sspyr_mm.probes.knn_scores
::: sspyr_mm.reports.measure_health
"""
_ZOO = """
# Model zoo

Every recipe, by method. No weights have been published, and no full-size recipe has been run. Results are those that
were measured here, with 95 % intervals; [tables at mini size](reproduction/README.md) has the commands.

The table is made from the metafiles of `configs/`. mmpretrain finds the recipes by name:

```python
from pathlib import Path

import sspyr_mm
from mmpretrain.apis import ModelHub, get_model

root = Path(sspyr_mm.__file__).parent / ".mim"
ModelHub.register_model_index(root / "model-index.yml", config_prefix=root)
model = get_model("ssprl_r50_coco_200e")
```
"""


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are not in docs/."""
    pages = {_address(name): (ROOT / name).read_text() for name in _OUTSIDE}
    pages |= {"model_zoo.md": _model_zoo(), "reference/settings.md": _settings(), "reference/python.md": _PYTHON}
    for address, text in pages.items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Turns links between files of the repository into links between pages."""
    address = page.file.src_uri
    names = {_address(name): name for name in _OUTSIDE}
    folder = posixpath.dirname(names.get(address, f"docs/{address}"))

    def replace(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        found = posixpath.normpath(posixpath.join(folder, target))
        found = next((f"{found}/{name}" for name in ("README.md",) if (ROOT / found / name).exists()), found)
        link = posixpath.relpath(_address(found), posixpath.dirname(address) or ".")
        return f"{match[1]}{link}{'#' + anchor if anchor else ''}{match[3]}"

    return _LINK.sub(replace, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Removes the roles of Sphinx that docstrings have."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):\s*(?=<code|<a)", "", html)


def _address(name: str) -> str:
    """Returns the address on the site of a file of the repository."""
    return "index.md" if name == "README.md" else name.removeprefix("docs/")


def _model_zoo() -> str:
    """Returns the page of all recipes and of their measured results."""
    parts = [_ZOO]
    for file in load(ROOT / "model-index.yml")["Import"]:
        found = load(ROOT / file)
        (method,) = found["Collections"]
        paper, readme = method["Paper"], method["README"]
        parts.append(
            f"## {method['Name']}\n\n[{paper['Title']}]({paper['URL']}). Settings: [{readme}]({readme}).\n\n"
            "| recipe | backbone | images | epochs | images per step | parameters |\n" + "|---" * 6 + "|"
        )
        for model in found["Models"]:
            about = model["Metadata"]
            names = ("Architecture", "Training Data", "Epochs", "Batch Size")
            cells = [f"`{model['Name']}`", *(str(about[name]) for name in names), f"{about['Parameters'] / 1e6:.1f} M"]
            parts[-1] += f"\n| {' | '.join(cells)} |"
        parts += [
            f"Measured, `{model['Name']}`, {one['Task']}, {one['Dataset']}: "
            f"{one['Metrics']['mAP']} ± {one['Metrics']['95 % interval']} mAP."
            for model in found["Models"]
            for one in model.get("Results", [])
        ]
    return "\n\n".join(parts) + "\n"


def _settings() -> str:
    """Returns the page of all classes that a config can name in ``type``, with their arguments."""
    found = defaultdict(list)
    for path in sorted(ROOT.glob("sspyr_mm/[a-z]*/**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in _REGISTERED.findall(path.read_text()):
            room = path.relative_to(ROOT / "sspyr_mm").as_posix()
            kind = next(kind for kind, rooms in _KINDS.items() if room.startswith(tuple(rooms.split())))
            found[kind].append(f"::: {module}.{name}")
    spec = "::: sspyr_mm.pyramid.PyramidSpec\n\n::: sspyr_mm.pyramid.ScaleSpec\n"
    parts = [f"## {kind}\n\n" + "\n\n".join(found[kind]) for kind in _KINDS]
    head = (
        "# Settings\n\nEvery class that a config names in `type`, with its arguments: the settings of its dict. "
        "`--cfg-options` rejects a name that is not among them.\n\n## The pyramid\n\n"
    )
    return head + spec + "\n" + "\n\n".join(parts) + "\n"
