"""How the site is built: `make docs`, without a network, every cell run, every warning an error."""

from __future__ import annotations

import os
import sys
from importlib.metadata import files
from pathlib import Path
from shutil import copy2

from sphinx.application import Sphinx

import matbackprop as mb

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "matbackprop"
author = "The matbackprop developers"
copyright = "the matbackprop developers, BSD-3-Clause"  # noqa: A001 (Sphinx's name)
version = release = mb.__version__
language = "en"

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "held",
    "reference",
]
exclude_patterns = ["_build", "_ext", "_templates"]
templates_path = ["_templates"]
nitpicky = True
# Docstrings say `Sequential` or `out`: a link where the reference has such a name, and plain emphasis elsewhere.
default_role = "autolink"
nitpick_ignore_regex = [("py:obj", r"[\w.]+")]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_render_markdown_format = "myst"

autodoc_typehints = "none"  # the docstrings say them in words
autodoc_member_order = "bysource"
autosummary_generate = True
numpydoc_show_class_members = False  # autodoc lists them
numpydoc_attributes_as_param_list = True

math_eqref_format = "({number})"
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"enableMenu": False}}

html_theme = "pydata_sphinx_theme"
html_title = "matbackprop"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "matbackprop"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "back_to_top_button": False,
    "search_as_you_type": False,
}
html_sidebars = {"index": []}


def copy_mathjax(app: Sphinx) -> None:
    """Copy the one file of MathJax that the pages load: it draws SVG and needs no font."""
    source = next(path for path in files("sphinx-mathjax-offline") or [] if path.name == Path(mathjax_path).name)
    target = app.outdir / "_static" / mathjax_path
    target.parent.mkdir(parents=True, exist_ok=True)
    copy2(source.locate(), target)


def isolate_kernels(app: Sphinx) -> None:
    """Give the cells a fresh IPython profile: not the builder's own, and silent about its sockets."""
    profile = Path(app.doctreedir) / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("get_config().Application.log_level = 40\n", "utf-8")
    os.environ["IPYTHONDIR"] = str(profile.parent)


def setup(app: Sphinx) -> None:
    """Connect them."""
    app.connect("builder-inited", isolate_kernels)
    app.connect("builder-inited", copy_mathjax)
