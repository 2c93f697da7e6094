"""How a `prisma.view.browser.View` gets into the page: a `gr.HTML` that runs one of the JavaScript viewers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from prisma.errors import PrismaError
from prisma.files import write_atomic
from prisma.view.browser import View, script, style

# The template holds no placeholder: Gradio evaluates what it puts into one, and a label could be code.
TEMPLATE = '<p class="pz-refused" role="status" hidden></p><div class="pz-root"></div>'
BRIDGE = """
const shown = (values) => {
  window.__prisma = { ...window.__prisma, [NAME]: values };
  element.dataset.ready = "1";
  if (!values.where || !element.offsetParent) return; // only the visible panel sets the address
  const link = new URL(location.href);
  if (!("image" in values.where)) link.searchParams.delete("image"); // an upload or a drawing has no address
  for (const [key, value] of Object.entries(values.where)) link.searchParams.set(key, value);
  history.replaceState(history.state, "", link);
};
const [refused, root] = [element.querySelector(".pz-refused"), element.querySelector(".pz-root")];
const view = VIEWER(root, {
  state: shown,
  choose: (index) => { props.value = { index }; trigger("choose"); },
  draw: (ink) => { props.value = { ink }; trigger("draw"); },
});
const update = () => {
  if (!props.value?.facts) return; // a choice that is being sent to Python
  const { arrays } = props.value;
  const facts = JSON.parse(props.value.facts);
  refused.textContent = facts.refused ?? "";
  refused.hidden = !(root.hidden = "refused" in facts);
  if (root.hidden) return;
  const entries = Object.entries(arrays).map(([name, { file, ...array }]) => [name, { ...array, url: file.url }]);
  view.update({ facts, arrays: Object.fromEntries(entries) });
};
watch("value", update);
update();
"""


def panel(viewer: str, name: str) -> gr.HTML:
    """A component that shows a `payload`. On a choice its value is `{index}`, with event choose, or `{ink}`, with draw.

    The choice is sent as the value and not as the event's data: of events in quick succession Gradio sends only the
    last, with the value at that moment but with the data of an earlier event.
    """
    names = f"const VIEWER = {viewer};\nconst NAME = {json.dumps(name)};"
    return gr.HTML(
        html_template=TEMPLATE,
        css_template=style(),
        js_on_load=f"{script(viewer)}\n{names}\n{BRIDGE}",
        apply_default_css=False,
        elem_id=f"pz-{name}",
    )


def payload(view: View) -> dict[str, Any]:
    """The value of a panel: facts as JSON text, arrays as files, to which Gradio adds their addresses."""
    cache = Path(get_upload_folder()).resolve()
    arrays = {
        name: {"type": array.type, "shape": array.shape, "file": _file(array.data, cache)}
        for name, array in view.arrays.items()
    }
    return {"facts": json.dumps(view.facts), "arrays": arrays}


def refusal(error: PrismaError) -> dict[str, Any]:
    """The value of a panel that shows only this error."""
    return payload(refused(error))


def refused(error: PrismaError) -> View:
    """A view that is only this error."""
    sentence = str(error)
    return View({"refused": f"{sentence[:1].upper()}{sentence[1:]}."})


def answer(value: Any, name: str) -> Any:
    """One entry of what the page sent, unchecked; None if there is no such entry."""
    return value.get(name) if isinstance(value, dict) else None


def _file(data: bytes, cache: Path) -> dict[str, Any]:
    """The bytes as a file named by their hash, so that equal arrays are sent to a page once.

    An existing file is not written again: a page may be downloading it at this moment.
    """
    path = cache / hashlib.sha256(data).hexdigest() / "array.gz"
    if path.is_file():
        path.touch()  # Gradio removes files by age
    else:
        write_atomic(path, data)
    described: dict[str, Any] = gr.FileData(path=str(path)).model_dump()
    return described
