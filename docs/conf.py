"""Settings of the site. `sphinx-build -W -b html docs docs/_build/html` makes it; a warning is an error."""

import sys
from pathlib import Path

import jaxtyping  # noqa: F401, before the packages: then their signatures show shapes

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "Primal-dual attention"
extensions = [
    "myst_nb",  # pages and notebooks in Markdown
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "generated_pages",  # this and those below are in docs/extensions
    "plain_docstrings",
    "unbroken_math",
    "checked_links",
]
exclude_patterns = ["_build"]
smartquotes = False  # --option stays as it is

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the committed notebooks hold their outputs
nb_merge_streams = True
nb_code_prompt_show = "Show the code of the figure"
nb_code_prompt_hide = "Hide the code of the figure"
mathjax_path = "mathjax/tex-chtml.js"  # served by the site itself, see generated_pages.py

autodoc_default_options = {"members": True, "member-order": "bysource", "exclude-members": "set_score_request"}
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
numpydoc_show_class_members = False
viewcode_line_numbers = True

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
pygments_style, pygments_dark_style = "default", "github-dark"
