"""HTML to text: code as it was, structure as Markdown, entities as characters."""

import html
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.preferences.readers import html_to_text

CODE = "def f(x):\n    # a_b *c*  <p>&amp;\n    if x < 3 && y:\n\n\treturn '`'"


@pytest.mark.parametrize("opening", ["<pre><code>", '<pre class="lang-py prettyprint-override"><code>'])
def test_code_blocks_keep_every_character(opening):
    text = html_to_text(f"<p>Before</p>\n\n{opening}{html.escape(CODE)}\n</code></pre>\n\n<p>After</p>")
    before, _, rest = text.partition("\n\n```")
    language, _, rest = rest.partition("\n")
    assert (before, language) == ("Before", "py" if "lang-py" in opening else "")
    assert rest == f"{CODE}\n```\n\nAfter"


@given(st.lists(st.text(alphabet="ab<>&*_`# \t.1-", min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_lines_of_code_come_back(lines):
    code = "\n".join(lines)
    text = html_to_text(f"<pre><code>{html.escape(code)}\n</code></pre>")
    fence = text.partition("\n")[0]
    assert set(fence) == {"`"}
    assert text == f"{fence}\n{code}\n{fence}"
    assert fence not in code.split("\n")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("plain 1 < 2 & a_b", "plain 1 < 2 & a_b"),
        ("<p>one</p>\n\n<p>two</p>\n", "one\n\ntwo"),
        ("<p>a &lt;T&gt; &amp; caf&eacute; &#128512;</p>", "a <T> & café 😀"),
        ("<p>use <code>a_b</code> <em>now</em></p>", "use `a_b` *now*"),
        ("<ul>\n<li>one</li>\n<li>two</li>\n</ul>", "- one\n- two"),
        ("<blockquote>\n<p>said</p>\n</blockquote>", "> said"),
        ('<p><a href="https://example.org/x_y">here</a></p>', "[here](https://example.org/x_y)"),
        ("<p>hi</p><script>alert(1)</script>", "hi"),
        ("<p>never closed <b>bold", "never closed **bold**"),
        ("<p>x", "x"),
        (
            "<p>2<sup>31</sup>-1, 10<sup>-6</sup>, x<sub>i</sub> and H<sub>2</sub>O</p>",
            "2^31-1, 10^{-6}, x_i and H_2O",
        ),
        (
            r"<p>$\begin{pmatrix} 1 \\ 2 \end{pmatrix}$ and \(a*b\)</p>",
            r"$\begin{pmatrix} 1 \\ 2 \end{pmatrix}$ and \(a*b\)",
        ),
        (r"C:\temp\*.txt and \_foo", r"C:\temp\*.txt and \_foo"),
        (r"<p>C:\temp\*.txt</p><pre><code>a\nb</code></pre>", "C:\\temp\\*.txt\n\n```\na\\nb\n```"),
        ("vector<int> v; a &lt; b", "vector<int> v; a < b"),
    ],
)
def test_fragments(source, text):
    assert html_to_text(source) == text


@given(st.text(alphabet="<>/pabcode &;#!-\"'= \n", max_size=60))
def test_no_text_stops_it(source):
    assert isinstance(html_to_text(source), str)


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "html_to_markdown", None)
    with pytest.raises(ValueError, match=r"^[^\n]*: html-to-markdown is not [^\n]*pip install '\.\[preferences\]'$"):
        html_to_text("<p>one</p>")
