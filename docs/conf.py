import tomllib
from pathlib import Path

metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "eventflow"
author = copyright = "The eventflow authors"
version = release = metadata["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "py:obj"  # `Run` in a docstring is a link to Run, and plain code where there is none

html_theme = "furo"
html_title = f"eventflow {version}"
html_copy_source = False
