"""The views, and what is said in each."""

from collections.abc import Mapping
from functools import partial

from primal_dual.colours import BLACK, BLUE
from primal_dual.explore import normalisation, scales, svr
from primal_dual.explore.head_sources import Source
from primal_dual.explore.heads import HeadState, RealHeads
from primal_dual.explore.heads_drawing import HeadsDrawing
from primal_dual.explore.normalisation_drawing import NormalisationDrawing
from primal_dual.explore.scales_drawing import ScalesDrawing
from primal_dual.explore.svr_drawing import SVRDrawing
from primal_dual.explore.view import View

DARK_VERMILION = "#B85000"  # as it is legible in text


def mark(colour: str, text: str) -> str:
    """Text in the colour of what it names, in a caption."""
    return f'<span class="mark" style="color: {colour}">{text}</span>'


SVR = View(
    path="/",
    title="An SVR is an attention",
    prose="""
        A support vector regression (SVR) fits the curve to the targets: errors inside the tube, up to ε, are free;
        beyond it they cost C. Its solution is an attention: at the query x, f(x) is an average of the values of the
        keys (blue bars), by the attention weights (lines). A value is at most C/h(k) in size, where h(k) is the sum
        of the kernel over the keys: values are often much larger than f, and those of both signs cancel in the
        average. <b>Try:</b> drag a target out of the tube: at first the curve follows it (triangle); farther out, it
        becomes a square: its value is at this bound. Move the pointer along the curve: the lines go to the keys that
        the query attends to. Make ε larger: more targets are inside the tube, and their keys have the value 0: they
        take weight, and add nothing. <a href="?digits=1">Stop the solver early</a>: the primal and the dual value
        are apart, and their gap bounds the error of f, everywhere. (Most points look free then: a solver that was
        stopped has made few δ exactly 0 or C.) <a href="?kernel=gaussian&C=100">Another kernel</a> makes another
        attention; so do <a href="?transform=batch+normalisation">batch normalisation</a>, <a
        href="?support=causal&position=9">a causal support</a>, under which each query has an SVR of its own, and <a
        href="?scale=3">averages of three keys</a>. (A key has one feature here. So with the kernel "linear", a key
        has the same weight for every query, and "unit length" leaves of a key its sign.)""",
    tutorial=2,
    state=svr.SVRState,
    drawing=SVRDrawing,
    captions={
        "function": f"""{mark(BLUE, "— f")} in its {mark("#0A6AA1", "tube ± ε")}. Targets:
            {mark("#555555", "● inside the tube")}, no support vector; {mark("#00785A", "▼ free")} support vector;
            {mark(DARK_VERMILION, "■ at the bound C")}. {mark(BLACK, "◆ query")}, and
            {mark("#8A6000", "its weights")} as lines to the keys. {mark("#A0467A", "Error band")}, where the solver
            was stopped. Drag a ring; click twice to add or remove a point.""",
        "map": "The attention map: the weight of each key (column) for each key as the query (row).",
        "duality": "No primal value is below a dual value. Where they meet, both are optimal.",
        "values": "The value of each key. f at the query is their average by the weights (plus the bias, if any).",
    },
    readout=svr.readout,
    as_python=svr.as_python,
    ends=svr.ends,
    idle=svr.idle,
)
NORMALISATION = View(
    path="/normalisation",
    title="What batch normalisation changes",
    prose="""
        The same keys and the same query, in softmax attention and in Attention-BN: the larger a disc, the more
        weight its key has. <b>Try:</b> move the pointer over the keys. In softmax attention, the keys far from the
        origin, in the direction of the mean (cross), have most of the weight for every query that lies where the
        keys lie: it is as if all queries voted for them together. In Attention-BN, a query attends to the keys on
        its own side of the mean. The bars below are that common vote: each key's logit (what the softmax is taken
        of), on average over the keys as queries, less a number that all keys share and that cancels. At β = 1
        Attention-BN has none: its bars are zero. <a href="?beta=0">At β = 0</a> it has one, too, and <a
        href="?beta=0.5">at β = 0.5</a> half of that. Drag one key far away, and mean and deviation (dashed) follow
        it: Attention-BN depends on all keys. <a href="?keys_x=-1+-0.5+0+0.5+1&keys_y=0.5+-1+0.2+0.9+-0.6">Around the
        origin</a>, there is nothing to vote for in softmax attention, either.""",
    tutorial=4,
    state=normalisation.NormalisationState,
    drawing=NormalisationDrawing,
    captions={
        "softmax": f"""Softmax attention: {mark(BLUE, "● weights")} of the {mark("#8A6000", "◆ query")} on the keys
            (black).""",
        "bn": f"""Attention-BN: {mark(DARK_VERMILION, "● weights")} of the same query. {mark("#A0467A", "✚ mean")} and
            deviation of the keys. Drag a key; click twice to add or remove one.""",
        "votes": f"""The vote that all queries share, for each key: {mark(BLUE, "softmax")},
            {mark(DARK_VERMILION, "Attention-BN")}.""",
    },
    readout=normalisation.readout,
    as_python=normalisation.as_python,
)
SCALES = View(
    path="/scales",
    title="What scaled heads see",
    prose="""
        A head of scale s is trained on averages of s neighbours, the pools. There are fewer training points, and so
        the attention costs less: a weight for each pool, not for each token. What is lost? The head sees the pools'
        means alone (thick lines). <b>Try:</b> set the scale to 1, 4 and 16, and compare f with the signal (dashed).
        <a href="?noise=0">Without noise</a>, no scale has a smaller error than 1. But averages also take noise away:
        with <a href="?noise=0.8">much noise</a>, scale 4 is better than 1 here (not in each draw of the noise), at a
        quarter of the cost. A signal with <a href="?scale=8&waves=6&noise=0.1">many waves</a> is lost in large
        pools. Move the pointer along the tokens: all tokens of a pool have the same weight (bars on the floor),
        since the pool is one key. A layer has heads of several scales, so that fine and coarse are both seen.""",
    tutorial=5,
    state=scales.ScalesState,
    drawing=ScalesDrawing,
    captions={
        "sequence": f"""{mark("#555555", "● targets")}, the signal (dashed) with noise;
            {mark(DARK_VERMILION, "▬ means")} of the pools, shaded by turns; {mark(BLUE, "— f")};
            {mark("#8A6000", "▮ weights")} of the ◆ query token.""",
        "cost": "Cost: the weights that are computed, as a part of those at scale 1.",
        "error": "Error: the root of the mean square of f less the signal. The scale that is chosen is in colour.",
    },
    readout=scales.readout,
    as_python=scales.as_python,
    ends=scales.ends,
)


def real_head(sources: Mapping[str, Source]) -> View:
    """The view of the heads of some sources."""
    found = RealHeads(sources)
    return View(
        path="/head",
        title="A real head",
        prose="""
            Any head whose weights are a kernel of query and key, as those of softmax attention are, solves an SVR:
            its keys are the training inputs, and its values the dual variables δ, divided by h. The certificate is
            the proof: it computes the primal and the dual value, each from its own definition, and their gap is zero
            up to rounding. The head of the spoken vowel forecasts the next frame of a vowel. It was trained as an
            SVR: in each output, some frames have the value 0 and are no support vectors. <b>Try:</b> move the
            pointer over the map: the bars are the weights of that query. Look at <a href="?attention=bn">batch
            normalisation</a>, where a frame attends to frames like itself, and at <a href="?attention=sh">a scaled
            head</a>, whose training points are half as many. <a href="?decimals=2">Keep two decimals of the
            values</a>: they no longer are the optimum, the gap shows it, and the error of f is below the bound that
            follows from the gap. (The smallest C that the values need is taken, and with cut values nearly all δ
            look free.) Heads of your own: <code>primal-dual explore --model FOLDER</code> or <code>primal-dual
            explore --keys K.npy --values V.npy</code>.""",
        tutorial=6,
        state=HeadState,
        drawing=partial(HeadsDrawing, found),
        captions={
            "map": f"The attention map; the lighter, the more weight. {mark('#8A6000', '— The query')} is a row.",
            "weights": "The weights of the query that is marked.",
            "sizes": f"""The size of δ of each training point in the output that is chosen, over its bound C:
                {mark("#00785A", "▮ free")} support vectors, and those {mark(DARK_VERMILION, "▮ at the bound")}.""",
        },
        readout=found.readout,
        as_python=found.as_python,
        options=found.options,
        ends=found.ends,
    )


def all_views(sources: Mapping[str, Source]) -> tuple[View, ...]:
    """The views; the last of them is of the heads of some sources."""
    return SVR, NORMALISATION, SCALES, real_head(sources)
