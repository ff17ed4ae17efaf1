"""Configs inside checkpoints, read without executing them."""

import ast
import io
import re
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

_SCOPES = ("mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg", "sspyr_mm")
"""Packages of registries; mmengine imports the package of a scope that it does not know yet."""
_REGISTERED = re.compile(rf"([A-Za-z]\w*|({'|'.join(_SCOPES)})\.[A-Z]\w*)")
"""Name in a registry, with or without a scope."""
_MAX_LENGTH = 500_000
"""Characters: our configs have 5,000, those with the names of a thousand classes 100,000."""
_MAX_VALUES, _MAX_INTEGER, _MAX_NESTING = 10_000, 1 << 20, 50
"""Values in the config of a network, its integers, such as a number of prototypes, and levels of nested dicts."""
_MAX_EXPRESSION = 50
"""Names, numbers, operators and brackets between two separators, such as ``dict(dict(``."""


def parse_config(text: str) -> Config:
    """Reads a config dumped by mmengine; raises as :func:`parse_plain` and :func:`check_types`.

    ``Config.fromstring`` executes the text, which is unsafe for checkpoints of unknown origin.
    """
    values = parse_plain(text)
    check_types(values)
    return Config(values)


def parse_plain(text: str) -> dict[str, Any]:
    """Reads assignments of literals, nested with ``dict(...)``; raises ValueError for anything else.

    Types may be import paths, as in pure Python configs: nothing may be built from the result without
    :func:`check_types`.
    """
    try:
        _check_size(text)
        return _assignments(ast.parse(text).body)
    except (SyntaxError, TypeError, tokenize.TokenError, MemoryError, RecursionError, _NotReadable) as error:
        raise ValueError(
            f"The config inside the checkpoint can't be read: {str(error) or type(error).__name__}"
        ) from error


class _NotReadable(Exception):
    """A text that is not even parsed."""


def _check_size(text: Any) -> None:
    """Raises _NotReadable for what the parser cannot take: older versions of Python crash on long expressions."""
    if not isinstance(text, str) or len(text) > _MAX_LENGTH or "\0" in text:
        size = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
        raise _NotReadable(f"it must be a text of at most {_MAX_LENGTH:,} characters without NUL, got {size}")
    length = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.NUMBER) or (token.type == tokenize.OP and token.string not in ",:="):
            length += 1
        elif token.type in (tokenize.OP, tokenize.NEWLINE):
            length = 0
        if length > _MAX_EXPRESSION:
            raise _NotReadable(f"line {token.start[0]} has an expression of more than {_MAX_EXPRESSION} parts")


def _assignments(statements: list[ast.stmt]) -> dict[str, Any]:
    values = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            raise _refusal(statement)
        values[statement.targets[0].id] = _literal(statement.value)
    return values


def check_types(config: Any, scopes: Sequence[str] = _SCOPES) -> None:
    """Raises ValueError for a ``type`` that a registry would import, such as ``os.system``, or another ``_scope_``."""
    if isinstance(config, dict):
        name, scope = config.get("type"), config.get("_scope_", scopes[0])
        if scope not in scopes:
            raise ValueError(
                f"The config inside the checkpoint asks for the package {scope!r} (_scope_), which may download data "
                f"and is not one of {', '.join(scopes)}; nothing was imported"
            )
        if isinstance(name, str) and not _REGISTERED.fullmatch(name):
            raise ValueError(
                f"The config inside the checkpoint asks for type={name!r}, which is not a registered name such as "
                "'ResNet' or 'mmpretrain.ResNet'; nothing was executed"
            )
        config = tuple(config.values())
    if isinstance(config, (list, tuple)):
        for value in config:
            check_types(value, scopes)


def check_plain(config: Any) -> None:
    """Raises ValueError unless the config of a network is a small tree of names and numbers.

    It may come from a file as values, which can be classes, contain one another, or be any number.
    """
    count, parts = 0, [(config, 0)]
    while parts:
        (value, depth), count = parts.pop(), count + 1
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            if not isinstance(value.get("type", ""), str):
                raise _not_plain(f"type={value['type']!r:.80}, which is not a name")
            parts += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, (list, tuple)):
            parts += [(one, depth + 1) for one in value]
        elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
            raise _not_plain(f"an integer beyond {_MAX_INTEGER:,}")
        elif not isinstance(value, (str, int, float)) and value is not None:
            raise _not_plain(f"a {type(value).__name__}, or a dict whose keys are not names")
        if depth > _MAX_NESTING or count + len(parts) > _MAX_VALUES:
            raise _not_plain(f"more than {_MAX_VALUES:,} values or {_MAX_NESTING} levels")


def _not_plain(what: str) -> ValueError:
    return ValueError(f"The config of the network inside the checkpoint has {what}; nothing was built")


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise _refusal(node)
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
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


def _refusal(node: ast.stmt | ast.expr) -> ValueError:
    return ValueError(
        f"The config inside the checkpoint is not plain data, line {node.lineno}: {ast.unparse(node)[:80]!r}; "
        "nothing was executed"
    )
