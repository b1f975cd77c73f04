"""Sphinx configuration. Warnings are errors: ``python -m sphinx -W -q -b html docs docs/_build/html``."""

import sys
from pathlib import Path

import dfo

sys.path.insert(0, str(Path(__file__).parent))
import generate

project = "dfo"
author = "The dfo developers"
copyright = author
version = release = dfo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "reference/_generated/*.inc.md"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"dfo {release}"
html_static_path = ["_static"]
html_css_files = ["dfo.css"]
html_extra_path = ["llms.txt"]
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e8a", "color-brand-content": "#0b6e8a"},
    "dark_css_variables": {"color-brand-primary": "#5cc4de", "color-brand-content": "#5cc4de"},
}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
add_module_names = False
suppress_warnings = ["ref.python"]  # one name in two modules: autodoc resolves it, the short form cannot
toc_object_entries_show_parents = "hide"

generate.write_all(Path(__file__).parent)
