"""A Gradio component that shows a `prisma.view.View` with one of the viewers of `prisma.view`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioModel

from prisma.files import write_atomic
from prisma.view import View, script, style

# The template holds no placeholder: Gradio evaluates what it puts into one, and a label could be code.
TEMPLATE = '<div class="pz-root"></div>'
BRIDGE = """
const shown = (values) => {
  window.__prisma = { ...window.__prisma, [NAME]: values };
  element.dataset.ready = "1";
  if (!values.where) return;
  const link = new URL(location.href);
  for (const [key, value] of Object.entries(values.where)) link.searchParams.set(key, value);
  history.replaceState(history.state, "", link);
};
const view = VIEWER(element.querySelector(".pz-root"), {
  state: shown,
  choose: (index) => trigger("choose", { index }),
  draw: (ink) => trigger("draw", { ink }),
});
const update = () => {
  if (!props.value) return;
  const { names, files, facts } = props.value;
  const { arrays, ...rest } = JSON.parse(facts);
  names.forEach((name, i) => { arrays[name].url = files[i].url; });
  view.update({ facts: rest, arrays });
};
watch("value", update);
update();
"""


class Payload(GradioModel):  # type: ignore[misc]
    """A view on its way to the page."""

    facts: str  # JSON, with type and shape of every array
    names: list[str]
    files: list[FileData]  # in the order of `names`


class Panel(gr.HTML):  # type: ignore[misc]
    """Shows a View. Events: `choose` (data: index) and `draw` (data: ink)."""

    data_model = Payload

    def __init__(self, viewer: str, name: str, value: View | None = None, **options: Any) -> None:
        names = f"const VIEWER = {viewer};\nconst NAME = {json.dumps(name)};"
        super().__init__(
            value,
            html_template=TEMPLATE,
            css_template=style(),
            js_on_load=f"{script(viewer)}\n{names}\n{BRIDGE}",
            apply_default_css=False,
            elem_id=f"pz-{name}",
            **options,
        )

    def preprocess(self, payload: Any) -> None:
        """The page tells a panel nothing but its events."""

    def postprocess(self, value: View | None) -> Payload | None:
        if value is None:
            return None
        shapes = {name: {"type": array.type, "shape": array.shape} for name, array in value.arrays.items()}
        files = [FileData(path=str(_kept(array.data, Path(self.GRADIO_CACHE)))) for array in value.arrays.values()]
        return Payload(facts=json.dumps({**value.facts, "arrays": shapes}), names=list(value.arrays), files=files)

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


def _kept(data: bytes, cache: Path) -> Path:
    """The bytes as a file named by their hash, so that equal arrays are sent to a page once.

    A file that is there is left as it is: it may be on its way to a page at this moment.
    """
    path = cache.resolve() / hashlib.sha256(data).hexdigest() / "array.gz"
    if path.is_file():
        path.touch()  # Gradio removes files by age
    else:
        write_atomic(path, data)
    return path
