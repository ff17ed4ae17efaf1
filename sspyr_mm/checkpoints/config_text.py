"""Configs inside checkpoints, read without executing them."""

import ast
import re
from typing import Any

from mmengine.config import Config

_REGISTERED = re.compile(r"[A-Za-z]\w*|(mm\w+|sspyr_mm)\.[A-Z]\w*")
"""Name in a registry, with or without a scope."""


def parse_config(text: str) -> Config:
    """Reads a config dumped by mmengine: assignments of literals, nested with ``dict(...)``.

    ``Config.fromstring`` executes the text, which is unsafe for checkpoints of unknown origin.

    Args:
        text: ``Config.pretty_text``, the ``meta.cfg`` of a checkpoint.

    Returns:
        The config.

    Raises:
        ValueError: As :func:`parse_plain` and :func:`check_types`.
    """
    values = parse_plain(text)
    check_types(values)
    return Config(values)


def parse_plain(text: str) -> dict[str, Any]:
    """Reads a config from which nothing is built; its types may be import paths, as in pure Python configs.

    Args:
        text: As of :func:`parse_config`.

    Returns:
        The config's values.

    Raises:
        ValueError: If the text contains anything but literals.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"The config inside the checkpoint can't be read: {error}") from error
    values = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            raise _refusal(statement)
        values[statement.targets[0].id] = _literal(statement.value)
    return values


def check_types(config: Any) -> None:
    """Rejects types that a registry would import and call, such as ``os.system``.

    Args:
        config: Part of a config from a checkpoint, of dicts, lists and plain values.

    Raises:
        ValueError: If a ``type`` in it is an import path instead of a registered name.
    """
    if isinstance(config, dict):
        name = config.get("type")
        if isinstance(name, str) and not _REGISTERED.fullmatch(name):
            raise ValueError(
                f"The config inside the checkpoint asks for type={name!r}, which is not a registered name such as "
                "'ResNet' or 'mmpretrain.ResNet'; nothing was executed"
            )
    if isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            check_types(value)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {_key(keyword): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(key): _literal(value) for key, value in pairs if key is not None}
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise _refusal(node) from error


def _key(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise _refusal(keyword.value)
    return keyword.arg


def _refusal(node: ast.AST) -> ValueError:
    return ValueError(
        f"The config inside the checkpoint is not plain data, line {getattr(node, 'lineno', '?')}: "
        f"{ast.unparse(node)[:80]!r}; nothing was executed"
    )
