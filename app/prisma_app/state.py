"""What a visitor looks at: one frozen object, which an address writes down completely.

`State.of` reads an address (or the arguments of an endpoint), `State.address` writes it. Nothing else that decides what
a figure shows exists, neither on the server nor in the page (`prisma/view/browser/assets/state.js` has the same keys).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from prisma.errors import PrismaError, quoted

MOST_TEXT = 4_000  # characters of one value: a drawing or a list of patches is the longest
VIEWS = ("attention", "lens", "patching", "training", "decompose", "steering", "latents", "units")


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError
    return value


Whole = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=10**12)]
Text = Annotated[str, BeforeValidator(lambda x: str(x) if type(x) in (int, float) else x), Field(max_length=MOST_TEXT)]
Version = Annotated[Literal[1], BeforeValidator(lambda x: 1 if x in ("1", 1) and not isinstance(x, bool) else x)]


class State(BaseModel):
    """Everything that decides what a figure shows. None stands for the default, which the server fills in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Version = 1
    model: Text | None = Field(
        None, description="a name of the list of models, which /models gives; the first by default"
    )
    rev: Text | None = Field(None, description="the commit of main that a link was made from")
    view: Literal["attention", "lens", "patching", "training", "decompose", "steering", "latents", "units"] = (
        "attention"
    )
    img: Text = Field("0", description="an example by number, sha256:... of an upload, or ink:... of a drawing")
    step: Whole | None = Field(None, description="the training step, one of the model's; the last by default")
    layer: Whole = Field(0, description="the layer, from 0")
    head: Whole = Field(0, description="the head of the layer, from 0")
    token: Whole | None = Field(
        None, description="the token, from 0: the class token and registers come first, then the patches row by row"
    )  # by default the first that is not a patch, else the middle patch
    corrupt: Text | None = Field(
        None, description="the other image: as img, or blur:, noise: or mean: and patches, such as blur:0,1,2"
    )
    metric: Literal["logit_diff", "logit", "probability"] = Field(
        "logit_diff", description="what is measured: logit_diff, logit or probability"
    )
    into: Literal["clean", "corrupt"] = Field("clean", description="the run that is patched: clean or corrupt")
    site: Text = Field("resid_pre", description="the site whose tokens are patched, such as resid_pre or mlp_out")
    target: Whole | None = Field(None, description="the class whose logit it is, from 0")
    against: Whole | None = Field(None, description="the class that the target is compared with, from 0")
    estimate: Literal["atp", "ig", "relp", "attn_lrp", "qk_fix", "atp_star"] | None = Field(
        None, description="how effects of patches are estimated: atp, ig, relp, attn_lrp, qk_fix or atp_star"
    )
    cell: Literal["head", "token"] | None = None  # patching: the cell of `layer` that is looked at, in one or other map
    prompts: Text = Field("", description="for a CLIP, its classes as text, a line each")
    coder: Text | None = Field(None, description="a published sparse coder of the model; the first by default")
    latent: Whole | None = Field(None, description="a latent of the sparse coder, from 0")
    change: Text = Field("", description="how the latent is changed: scale:0 ablates it, scale:2 doubles, steer:4 adds")
    units: Text | None = Field(
        None,
        description="a kind of units, of `layer` (and `head`): mlp.post for neurons, resid_post, attn.z, logits, ...",
    )
    number: Whole | None = Field(
        None, description="the unit of that kind, from 0; the one that is largest in the image by default"
    )
    steer: Text | None = Field(None, description="the site to which a direction is added, such as blocks.4.resid_post")
    where: Literal["class", "patches", "all"] | None = Field(
        None, description="the tokens to which the direction is added: class, patches or all"
    )
    direction: Literal["means", "readout"] = Field(
        "means", description="what is added: the difference of the classes' means, or the readout's direction"
    )
    reach: Whole | None = Field(None, description="the largest dose: 1, 2, 4, 8 or 16")
    outlying: Text | None = Field(
        None, description="register neurons: above how many times the median norm a patch is outlying: 1.5, 2, 3 or 5"
    )
    after: Whole | None = Field(None, description="register neurons: the layer after which norms are taken")
    moved: Whole | None = Field(None, description="register neurons: how many are moved to an empty token")
    span: Whole | None = Field(None, description="how many classes, or prompts of a CLIP, name each head")
    ablate: Text = ""  # heads that hold their mean: `0.3,1.2` for layer 0 head 3 and layer 1 head 2

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "State":
        """The state of an address or of an endpoint's arguments; None and "" stand for the default. Anyone sends these.

        Raises:
            PrismaError: a key that is none of these, or a value of another type or range.
        """
        given = {key: value for key, value in values.items() if value is not None and value != ""}
        try:
            return cls(**given)
        except (ValidationError, TypeError) as error:
            raise PrismaError(_sentence(error, given)) from None

    def address(self) -> str:
        """The query of an address, `?v=1&model=...`, with every value that is not the default."""
        given = {"v": self.v, **self.model_dump(exclude_defaults=True)}
        return "?" + "&".join(f"{key}={quote(str(value), safe='/:,')}" for key, value in given.items())


def _sentence(error: ValidationError | TypeError, given: Mapping[str, Any]) -> str:
    if not isinstance(error, ValidationError):
        return "expected keys as text"
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else "values"
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        return f"expected keys among {', '.join(State.model_fields)}; found {quoted(key, 40)}"
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
    elif kind in ("greater_than_equal", "less_than_equal"):
        expected = "a whole number from 0 to 10^12"
    elif kind in ("string_too_long", "too_long"):
        return f"expected {key} of at most {MOST_TEXT:,} characters; found {len(str(given[key])):,}"
    else:
        expected = "text" if kind.startswith("string") else "a whole number"
    return f"expected {key} as {expected}; found {quoted(given.get(key), 40)}"
