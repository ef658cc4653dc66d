"""A comma or full stop after an equation in a line stays with it: browsers would break the line between them."""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class KeepPunctuation(SphinxPostTransform):
    """Put an equation and the punctuation after it into one element, which the style sheet does not break."""

    default_priority = 900

    def run(self, **options: object) -> None:
        for math in list(self.document.findall(nodes.math)):
            after = math.next_node(descend=False, siblings=True)
            mark = re.match(r"[^\s\w(]+", after) if isinstance(after, nodes.Text) else None
            if mark:
                after.parent.replace(after, nodes.Text(after[mark.end() :]))
                math.replace_self(nodes.inline("", "", math.deepcopy(), nodes.Text(mark[0]), classes=["unbroken"]))


def setup(app: Sphinx) -> dict:
    app.add_post_transform(KeepPunctuation)
    return {"parallel_read_safe": True}
