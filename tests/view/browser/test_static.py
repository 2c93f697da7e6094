"""Pages without a server: what is in their files."""

import base64
import json

import torch

from prisma.view.browser import View, numbers
from prisma.view.browser.static import as_script, pack_script, page_files


def test_a_page_is_three_files_and_strings_stay_strings() -> None:
    files = page_files("<b>a & b", "c < d", "dashboard", {"base": "data/", "bad": "</script>\u2028"})
    assert sorted(files) == ["index.html", "page.css", "page.js"]
    html = files["index.html"].decode()
    assert "&lt;b&gt;a &amp; b</title>" in html and "<footer>c &lt; d</footer>" in html
    assert html.count("</script>") == 2 and '"bad":"\\u003c/script>\\u2028"' in html
    assert b"$" not in files["index.html"] and b".pz-root" in files["page.css"]


def test_a_script_hands_over_the_bytes_of_a_view() -> None:
    view = View({"a": 1}, {"x": numbers(torch.arange(3))})
    text = pack_script("part-0", view).decode()
    name, data = json.loads("[" + text.strip().removeprefix("PRISMA_PACK(").removesuffix(");") + "]")
    assert name == "part-0" and base64.b64decode(data) == view.pack()
    assert as_script({"a": "<é"}) == '{"a":"\\u003c\\u00e9"}'
