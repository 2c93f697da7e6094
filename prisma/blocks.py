"""The block of a transformer: two branches that read the residual stream and add to it.

Shapes: B batch, T token, M d_model.

Sources: Vaswani et al. 1706.03762; Dosovitskiy et al. 2010.11929 (ViT); Dehghani et al. 2302.05442 (parallel branches);
Liu et al. 2111.09883 (res-post-norm).
"""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from prisma.attention import Attention
from prisma.config import TransformerConfig
from prisma.errors import PrismaError
from prisma.layers import MLP, LayerScale, make_norm
from prisma.sites import AnyTap, no_tap

BRANCHES: Mapping[str, tuple[str, str, str]] = {
    "time": ("ln_time", "scale_time", "resid_time"),
    "attn": ("ln1", "scale1", "resid_mid"),
    "mlp": ("ln2", "scale2", "resid_post"),
}
"""Branch of a block -> its norm, its layer scale, and the residual stream after its output has been added."""
RESUMABLE = ("resid_pre", "attn.z", "attn_out", "resid_mid", "mlp.post", "mlp_out", "resid_post")
"""Sites of a block up to which it can be run, and from whose value it can be continued: `Block.until`, `resume`."""


class Block(nn.Module):
    """Two branches that read the residual stream and add to it: x = x + attn(ln1(x)), then x = x + mlp(ln2(x)).

    That is norm="pre"; `config.norm` puts the norms elsewhere, and with `config.parallel` the MLP reads what attention
    reads. Each step is a method, so that a run can start at any of them.
    """

    attention: type[Attention] = Attention

    def __init__(self, config: TransformerConfig, bias: Tensor | None = None) -> None:
        super().__init__()
        self.norm, self.parallel = config.norm, config.parallel
        self.attn = self.attention(config, bias)
        self.mlp = MLP(config, config.d_mlp) if config.d_mlp else None
        has = {"ln1": config.norm != "none", "ln2": config.norm != "none" and config.d_mlp > 0}
        for name, there in has.items():
            self.add_module(name, make_norm(config, config.d_model) if there else nn.Identity())
        self.scale1 = LayerScale(config.d_model) if config.layer_scale else nn.Identity()
        self.scale2 = LayerScale(config.d_model) if config.layer_scale and config.d_mlp else nn.Identity()

    def forward(self, x_BTM: Tensor, tap: AnyTap = no_tap, keep: int | None = None) -> Tensor:
        """The residual stream [batch, token, d_model] after the block; with `keep`, its first `keep` tokens only.

        The kept tokens attend to all tokens.
        """
        x = tap("resid_pre", x_BTM)
        resid_mid = self.after("attn", x[:, :keep] + self.attn_branch(x, tap, keep), tap)
        return self.mlp_half(resid_mid, x[:, :keep], tap)

    def mlp_half(self, resid_mid: Tensor, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """The residual stream after the block, from the stream between its branches.

        Args:
            x_BTM: the stream that attention read, which the MLP reads too if the branches are parallel.
        """
        if self.mlp is None:
            return tap("resid_post", resid_mid)
        read = x_BTM if self.parallel else resid_mid
        return self.after("mlp", resid_mid + self.mlp_branch(read, tap), tap)

    def attn_branch(self, x_BTM: Tensor, tap: AnyTap = no_tap, keep: int | None = None) -> Tensor:
        """What attention adds to the stream: attn(ln1(x))."""
        return self._added("attn", self.attn(self.read("attn", x_BTM, tap), tap.within("attn"), keep), tap)

    def mlp_branch(self, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """What the MLP adds to the stream: mlp(ln2(x))."""
        if self.mlp is None:
            raise PrismaError("expected a block with an MLP; found none")
        return self._added("mlp", self.mlp(self.read("mlp", x_BTM, tap), tap.within("mlp")), tap)

    def until(self, site: str, x_BTM: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The value of a site, and the two streams that `resume` takes with it; nothing after the site is computed.

        Args:
            site: one of `RESUMABLE`.
            x_BTM: the stream before the block.
        """
        if site in ("resid_pre", "resid_post"):
            return x_BTM if site == "resid_pre" else self(x_BTM), x_BTM, None
        if site == "attn.z":
            return self.attn.heads(self.read("attn", x_BTM)), x_BTM, None
        out = self.attn_branch(x_BTM)
        if site == "attn_out":
            return out, x_BTM, None
        resid_mid = self.after("attn", x_BTM + out)
        read = x_BTM if self.parallel else resid_mid
        if site == "mlp.post":
            assert self.mlp is not None
            return self.mlp.neurons(self.read("mlp", read)), x_BTM, resid_mid
        return resid_mid if site == "resid_mid" else self.mlp_branch(read), x_BTM, resid_mid

    def resume(
        self,
        site: str,
        value: Tensor,
        x_BTM: Tensor,
        resid_mid: Tensor | None = None,
        tap: AnyTap = no_tap,
        keep: int | None = None,
    ) -> Tensor:
        """The residual stream after the block, from the value of one of its sites; nothing before it is computed.

        Args:
            site: one of `RESUMABLE`.
            x_BTM: the stream that attention reads and adds to.
            resid_mid: the stream that the MLP adds to; needed for sites of the MLP.
            keep: only so many tokens, from the first, are computed.
        """
        if site == "resid_pre":
            after: Tensor = self(value, tap, keep)
            return after
        value, x_BTM, resid_mid = value[:, :keep], x_BTM[:, :keep], None if resid_mid is None else resid_mid[:, :keep]
        if site == "resid_post":
            return tap(site, value)
        if site == "resid_mid":
            return self.mlp_half(tap(site, value), x_BTM, tap)
        if site in ("mlp.post", "mlp_out"):
            if resid_mid is None:
                raise PrismaError(f"expected resid_mid, the stream that the MLP adds to, with {site}; found none")
            return self.after("mlp", resid_mid + self._resumed("mlp", site, value, tap), tap)
        resid_mid = self.after("attn", x_BTM + self._resumed("attn", site, value, tap), tap)
        return self.mlp_half(resid_mid, x_BTM, tap)

    def read(self, branch: str, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """What a branch reads from the stream: its norm, where the model has it before the branch."""
        return self._norm(branch, "pre", x_BTM, tap)

    def scale(self, branch: str, out_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """What a branch adds to the stream, from what it wrote: a norm of its output, then layer scale."""
        scaled: Tensor = self.get_submodule(BRANCHES[branch][1])(self._norm(branch, "res_post", out_BTM, tap))
        return scaled

    def after(self, branch: str, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """The stream after a branch, from its sum with what the branch added: normed, where the model norms the sum."""
        return tap(BRANCHES[branch][2], self._norm(branch, "post", x_BTM, tap))

    def _added(self, branch: str, out_BTM: Tensor, tap: AnyTap) -> Tensor:
        return tap(f"{branch}_out", self.scale(branch, out_BTM, tap))

    def _resumed(self, branch: str, site: str, value: Tensor, tap: AnyTap) -> Tensor:
        """What a branch adds to the stream, from the value of that or of `attn.z` or `mlp.post`."""
        if site == f"{branch}_out":
            return tap(site, value)
        inner, module = tap.within(branch), cast(Attention | MLP, self.get_submodule(branch))
        return self._added(branch, module.write(inner(site.removeprefix(f"{branch}."), value), inner), tap)

    def _norm(self, branch: str, place: str, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        """The branch's norm, if this is where the model has it."""
        name = BRANCHES[branch][0]
        return tap(f"{name}.normalized", self.get_submodule(name)(x_BTM)) if self.norm == place else x_BTM
