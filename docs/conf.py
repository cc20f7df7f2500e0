"""How the documentation is built."""

import sys
from pathlib import Path

import aioigd

project = "aioigd"
author = "The aioigd developers"
copyright = f"2026, {author}"
release = version = aioigd.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.viewcode"]
source_suffix = [".md"]
exclude_patterns = ["_build", "_generated"]
nitpicky = False
html_theme = "furo"
html_title = "aioigd"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
intersphinx_mapping = {}

sys.path.insert(0, str(Path(__file__).parent))
import generate  # noqa: E402

generate.write_all(Path(__file__).parent / "_generated")
