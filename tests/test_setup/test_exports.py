"""Components that a config can name can be imported from the package of their folder."""

import importlib

import mmengine.registry
import pytest
from mmengine.registry import Registry

import sspyr_mm.registration  # noqa: F401


def registered(package):
    """Components of a package, of all registries and their children."""
    pending = [r for r in vars(mmengine.registry).values() if isinstance(r, Registry)]
    found = set()
    while pending:
        registry = pending.pop()
        pending += registry.children.values()
        found |= {c for c in registry.module_dict.values() if c.__module__.startswith(package)}
    return found


@pytest.mark.parametrize(
    "package",
    [f"sspyr_mm.{name}" for name in ("models", "datasets", "evaluation", "engine.hooks", "engine.optimizers")],
)
def test_every_component_is_exported(package):
    module = importlib.import_module(package)
    found = registered(f"{package}.")
    assert found
    assert not {component.__name__ for component in found} - set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
