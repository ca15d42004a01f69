"""A Sphinx extension: formulas as MathML, which browsers draw without any script.

The conversion is docutils' own, so that a page needs neither a network nor a TeX
installation. A command of TeX that docutils does not know ends the build.
"""

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml


def to_mathml(tex, display):
    """MathML of a formula in TeX, to stand in a line or (``"block"``) by itself."""
    return tex2mathml(tex).replace("<math ", f'<math display="{display}" ', 1)


def _visit_inline(translator, node):
    translator.body.append(to_mathml(node.astext(), "inline"))
    raise SkipNode


def _visit_block(translator, node):
    formula = to_mathml(node.astext(), "block")
    translator.body.append(f'<div class="math">{formula}</div>\n')
    raise SkipNode


def setup(app):
    """Register the renderer, as Sphinx expects of an extension."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
