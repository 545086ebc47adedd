"""Escaping of text in Markdown tables and reports."""

import pytest

from sar_mixmae_jax.utils.tables import escape_markdown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b (c) {d} #1!", "a_b (c) {d} #1!"),
        ("_a_", r"\_a\_"),
        ("__init__", r"\_\_init\_\_"),
        ("*a* `b` [c](d) | e", r"\*a\* \`b\` \[c\](d) \| e"),
        ("~~a~~ $b$", r"\~\~a\~\~ \$b\$"),
        ("VH < -23 & a", "VH < -23 & a"),
        ("<b> &lt; &#60;", "&lt;b> &amp;lt; &amp;#60;"),
    ],
)
def test_only_what_markdown_reads_is_escaped(text, escaped):
    assert escape_markdown(text) == escaped
