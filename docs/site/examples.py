"""Doctests in docstrings as code: an extension of griffe, named in mkdocs.yml; griffe knows `Examples:` alone."""

import re

import griffe

HEADING = re.compile(r"^( *)Example:$", flags=re.M)


class Examples(griffe.Extension):
    """Gives examples the heading that griffe reads."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Change the docstring of one function, class, module or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = HEADING.sub(r"\1Examples:", obj.docstring.value)
