"""What mkdocs.yml adds to mkdocs: CHANGELOG.md as a page, links that leave docs/, and public names
that the reference does not mention yet.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
URL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: Any) -> Files:
    changes = (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "changes.md", content=changes))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    if page.file.src_uri == "reference.md":
        markdown += "".join(f"\n::: ctask.{name}\n" for name in sorted(public() - named(markdown)))
    return OUTSIDE.sub(repository_link, markdown)


def repository_link(match: re.Match[str]) -> str:
    """A link to a file beside docs/, which the site does not have: the repository's."""
    path, anchor = match.groups()
    place = ROOT / path
    if not place.exists():
        raise PluginError(f"a link to {path}, which does not exist")
    return f"]({URL}/{'tree' if place.is_dir() else 'blob'}/main/{path}{anchor})"


def public() -> set[str]:
    """ctask.__all__, from the source."""
    for node in ast.parse((ROOT / "ctask" / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    raise PluginError("ctask/__init__.py has no __all__")


def named(markdown: str) -> set[str]:
    """The names that the reference has: as `::: ctask.name`, or as a heading of its own."""
    return set(re.findall(r"^(?::::|#+) `?ctask\.(\w+)", markdown, re.MULTILINE))
