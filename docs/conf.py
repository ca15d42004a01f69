"""Configuration of the documentation: `make docs` builds it."""

import re
import shutil
import sys
import warnings
from pathlib import Path

import matplotlib
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401

matplotlib.use("Agg")
# A few rounds of IterativeImputer are enough for the gallery.
warnings.filterwarnings("ignore", category=ConvergenceWarning)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import diagrams  # noqa: E402
import thumbnails  # noqa: E402

import admc_sklearn  # noqa: E402

project = "admc_sklearn"
version = release = admc_sklearn.__version__
copyright = "the authors of admc_sklearn"
exclude_patterns = ["_build", "_examples", "gallery.rst"]
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
    "mathml",
]

templates_path = ["_templates"]
autosummary_generate = True
# What scikit-learn adds to every estimator is described there.
autodoc_default_options = {
    "members": True,
    "exclude-members": "set_fit_request, set_predict_proba_request, "
    "set_transform_request",
}
numpydoc_show_class_members = False
# Types stand in the docstrings, in words.
autodoc_typehints = "none"

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"admc_sklearn {release}"
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
}


def copy_examples(target):
    """Copy the scripts without what only the command line needs.

    That is saving the picture, and progress bars.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    headless = 'import matplotlib\n\nif __name__ == "__main__":\n'
    headless += '    matplotlib.use("Agg")\n'
    for path in sorted((HERE.parent / "examples").glob("plot_*.py")):
        text = path.read_text().replace(headless, "").replace(", verbose=1", "")
        text = re.split(r"# %%(?: \[markdown\])?\n# Run as a script", text)[0]
        text = thumbnails.with_thumbnail(path.stem, text)
        (target / path.name).write_text(text)
    shutil.copy(HERE / "gallery.rst", target / "GALLERY_HEADER.rst")


def copy_results(target):
    """Copy the page of results, its links to files of the repository as plain text."""
    target.parent.mkdir(exist_ok=True)
    text = (HERE.parent / "benchmarks" / "README.md").read_text()
    target.write_text(re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text))


diagrams.draw_all(HERE / "_diagrams")
copy_results(HERE / "generated" / "results.md")
copy_examples(HERE / "_examples")
sphinx_gallery_conf = {
    "examples_dirs": "_examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "plot_",
    "backreferences_dir": None,
    "image_scrapers": ("matplotlib", "thumbnails.scrape"),
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,  # their page loads scripts from other hosts
    "show_signature": False,
    "download_all_examples": False,
}
