"""Steps over pairs of images of two classes: which part carries the difference, and which few edges are enough."""

from dataclasses import replace

from torch import Tensor

from prisma.analysis.circuits.circuit_discovery import CircuitDiscovery, check_circuit, circuit_discovery
from prisma.analysis.circuits.circuit_evaluation import CircuitEvaluation, circuit_evaluation, edge_scores
from prisma.analysis.circuits.circuit_figures import PROPORTIONS
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.circuits.path_patching import path_patching
from prisma.analysis.patching.activation_patching import ActivationPatching, activation_patching
from prisma.mechanisms.findings import Finding, Row, StepFindings, Table, flat, rounded, with_interval
from prisma.mechanisms.given import DoesNotApplyError, Given, Pairs
from prisma.mechanisms.image_steps import heads_that, scored_heads, verdict_of

MOST_EDGES = 200
"""Edges of a graph of which each is removed on its own; in a larger one that takes minutes."""
DRAWS = 10
"""Random circuits."""
STEPS = 5
"""Of the attribution by which edges are ranked."""
SAID = 5
SHARES = (0.1, 0.2, 0.5)
"""Of MIB's shares of all edges, those that a sentence may name."""
ENOUGH = 0.9


def patched(given: Given, site: str = "attn.z", axis: str = "head") -> ActivationPatching:
    """In the run on the clean image of each pair, each part gets its value on the other image."""
    pairs = given.test_pairs
    return activation_patching(given.model, pairs.clean, pairs.corrupt, site, pairs.metric, axis=axis)


def patching(given: Given) -> StepFindings:
    """Which head or MLP carries the difference between two images."""
    pairs, config = given.test_pairs, given.model.config
    if not config.n_layers:
        raise DoesNotApplyError("no_heads")
    cells = dict[str, tuple[float, float, float]]()
    for site, axis, name in (("attn.z", "head", "head {}.{}"), ("mlp_out", "component", "mlp {}")):
        if site == "mlp_out" and not config.d_mlp:
            continue
        found = patched(given, site, axis)
        shares, ends = found.normalised(), found.interval("normalised")
        for layer in range(shares.shape[0]):
            for unit in range(shares.shape[1]):
                cells[name.format(layer, unit)] = with_interval(shares[layer, unit], ends[:, layer, unit])
    order = sorted(cells, key=lambda name: -cells[name][0])
    carried = [name for name in order if verdict_of(cells[name]) == "needed"]
    said = [_pairs_finding(pairs)]
    said += [Finding("carries", (name,), flat(cells[name]), in_card=i < 2) for i, name in enumerate(carried[:SAID])]
    said.append(Finding("carriers", (), flat(len(carried), len(cells))))
    rows = tuple(Row(name, (cells[name],)) for name in order)
    return StepFindings("patching", tuple(said), (Table("patching", rows),))


def _pairs_finding(pairs: Pairs) -> Finding:
    """How the pairs were made."""
    if pairs.differing is None:
        return Finding("pairs_at_random", (), flat(len(pairs), pairs.right, pairs.tried))
    return Finding("pairs_by_factors", (), flat(len(pairs), pairs.differing, pairs.right, pairs.tried))


def evaluated(given: Given) -> CircuitEvaluation:
    """Circuits of all sizes on test pairs, ranked by scores from training pairs."""
    chosen, judged = given.training_pairs, given.test_pairs
    scores = edge_scores(given.model, chosen.clean, chosen.corrupt, chosen.metric, steps=STEPS)
    return circuit_evaluation(
        given.model, judged.clean, judged.corrupt, judged.metric, scores, draws=DRAWS, seed=given.seed
    )


def found_circuit(given: Given) -> CircuitDiscovery:
    """A circuit that is found on training pairs, checked on test pairs."""
    chosen, judged = given.training_pairs, given.test_pairs
    found = circuit_discovery(
        given.model, chosen.clean, chosen.corrupt, chosen.metric, draws=DRAWS, seed=given.seed, steps=STEPS
    )
    return check_circuit(
        given.model, judged.clean, judged.corrupt, judged.metric, found.named(), draws=DRAWS, seed=given.seed,
        steps=STEPS,
    )  # fmt: skip


def circuit(given: Given) -> StepFindings:
    """Which few edges are enough, beside random circuits with as many edges."""
    if not given.model.config.n_layers:
        raise DoesNotApplyError("no_heads")
    n_edges = int(Graph(given.model.config).edges.sum())
    curves = evaluated(given)
    tables, said = [], list[Finding]()
    if n_edges <= MOST_EDGES:
        found = found_circuit(given)
        said += [*_circuit_findings(found, n_edges), *_edge_findings(given, found)]
        tables.append(_edge_table(found))
    else:
        said.append(Finding("too_many_edges", (), flat(n_edges, MOST_EDGES)))
    ends = curves.faithfulness_interval()
    rows = tuple(_size_row(curves, i, ends[:, i]) for i in range(len(PROPORTIONS)) if curves.edges[i] > 0)
    if n_edges > MOST_EDGES:
        said.append(_size_finding(rows, n_edges))
    for figure, values in (("cmd", curves.random_cmd), ("cpr", curves.random_cpr)):
        value = with_interval(getattr(curves, figure), curves.interval(figure))
        numbers = flat(value, rounded(values.min()), rounded(values.max()), DRAWS)
        said.append(Finding(figure, (), numbers, in_card=figure == "cmd"))
    said.append(Finding("circuit_pairs", (), flat(len(given.training_pairs), len(given.test_pairs))))
    return StepFindings("circuit", tuple(said), (Table("sizes", rows), *tables))


def _circuit_findings(found: CircuitDiscovery, of: int) -> list[Finding]:
    """How good the circuit is, and its strongest edges."""
    edges, chance = int(found.edges.sum()), found.random_faithfulness
    faithful = with_interval(found.faithfulness, found.interval("faithfulness"))
    complete = with_interval(found.completeness, found.interval("completeness"))
    numbers = flat(edges, of, faithful, rounded(chance.min()), rounded(chance.max()), DRAWS)
    return [Finding("circuit", (), numbers, in_card=True), Finding("completeness", (), flat(complete))]


def _edge_findings(given: Given, found: CircuitDiscovery) -> list[Finding]:
    """The edges without which the circuit loses most, each with what it carries alone; and who reads with whose help.

    A head whose key comes from a head that attends to the patch before is an induction head as Elhage et al. 2021 and
    Olsson et al. 2209.11895 describe it.
    """
    lost = sorted(_edges(found), key=lambda edge: (-edge[2], edge[:2]))
    before = {f"a{layer}.h{head}" for layer, head in heads_that(scored_heads(given), "previous_patch")}
    said = [_edge_finding(given, "edge", sender, receiver, removal) for sender, receiver, removal, _ in lost[:SAID]]
    for sender, receiver, removal, _ in lost:
        if sender in before and receiver.endswith(".k"):
            said.append(replace(_edge_finding(given, "induction", sender, receiver, removal), in_card=True))
    return said


def _edge_finding(given: Given, says: str, sender: str, receiver: str, removal: float) -> Finding:
    """What an edge carries in a run in which it alone is replaced, and what the circuit loses without it."""
    pairs = given.test_pairs
    alone = path_patching(given.model, pairs.clean, pairs.corrupt, pairs.metric, senders=[sender], receivers=[receiver])
    value = with_interval(alone.normalised()[0, 0], alone.interval("normalised")[:, 0, 0])
    return Finding(says, (sender, receiver), flat(value, rounded(removal)))


def _edges(found: CircuitDiscovery) -> list[tuple[str, str, float, float]]:
    """(sender, receiver, faithfulness lost without it, score) of each edge of a circuit."""
    places = found.edges.nonzero().tolist()
    named = zip(found.named(), places, strict=True)
    return [(a, b, found.removal[s, v].item(), found.scores[s, v].item()) for (a, b), (s, v) in named]


def _edge_table(found: CircuitDiscovery) -> Table:
    rows = [Row(f"{a} > {b}", ((rounded(removal),), (rounded(score),))) for a, b, removal, score in _edges(found)]
    return Table("edges", tuple(sorted(rows, key=lambda row: (-row.cells[0][0], row.name))))


def _size_row(curves: CircuitEvaluation, i: int, ends: Tensor) -> Row:
    """Faithfulness of the best share of all edges, with its interval, and of random circuits of the same size."""
    value = with_interval(curves.faithfulness[i], ends)
    chance = curves.random_faithfulness[:, i]
    at_random = (rounded(chance.mean()), rounded(chance.min()), rounded(chance.max()))
    return Row(f"{PROPORTIONS[i]:g}", ((float(curves.edges[i]),), value, at_random))


def _size_finding(rows: tuple[Row, ...], of: int) -> Finding:
    """The smallest of a few sizes with ENOUGH of the metric; of none, the largest of them."""
    known = [row for row in rows if float(row.name) in SHARES] or list(rows[-1:])
    row = next((row for row in known if row.cells[1][0] >= ENOUGH), known[-1])
    return Finding("size", (), flat(row.cells[0], of, row.cells[1], row.cells[2][1:], DRAWS), in_card=True)
