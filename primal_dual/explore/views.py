"""The views, and what is said in each."""

from primal_dual.explore import svr
from primal_dual.explore.drawing import BLACK, BLUE, VERMILION
from primal_dual.explore.svr_drawing import SVRDrawing
from primal_dual.explore.view import View


def mark(colour: str, text: str) -> str:
    """Text in the colour of what it names, in a caption."""
    return f'<span class="mark" style="color: {colour}">{text}</span>'


SVR = View(
    path="/",
    title="An SVR is an attention",
    prose="""
        A support vector regression (SVR) fits the curve to the targets: errors inside the tube, up to ε, are free;
        beyond it they cost C. Its solution is an attention. At the query x, f(x) is an average of one value for each
        key, by the weights that are drawn as lines. <b>Try:</b> drag a target out of the tube, and it becomes a square:
        its value is as large as C allows. Move the pointer along the curve: the lines go to the keys that the query
        attends to. Make ε larger: more targets are inside the tube, their values are 0, and without them f would be
        the same. <a href="?digits=1">Stop the solver early</a>: the primal and the dual value are apart, and their gap
        bounds the error of f, everywhere. <a href="?kernel=gaussian&C=100">Another kernel</a> makes another attention;
        so do <a href="?transform=batch+normalisation">batch normalisation</a>,
        <a href="?support=causal&position=9">a causal support</a>, under which each query has an SVR of its own, and
        <a href="?scale=3">averages of three keys</a>.""",
    tutorial=1,
    state=svr.SVRState,
    drawing=SVRDrawing,
    captions={
        "function": f"""{mark(BLUE, "— f")} in its {mark("#0A6AA1", "tube ± ε")}. Targets:
            {mark("#555555", "● inside the tube")}, no support vector; {mark("#00785A", "▼ free")} support vector;
            {mark(VERMILION, "■ at the bound C")}. {mark(BLACK, "◆ query")}, and
            {mark("#8A6000", "its weights")} as lines to the keys. {mark("#A0467A", "Error band")}, where the solver
            was stopped. Drag a ring; click twice to add or remove a point.""",
        "map": "The attention map: the weight of each key (column) for each key as the query (row).",
        "duality": "No primal value is below a dual value. Where they meet, both are optimal.",
    },
    readout=svr.readout,
    as_python=svr.as_python,
    idle=svr.idle,
)
VIEWS = (SVR,)
