"""The colours of figures, which colour-blind readers can tell apart (Okabe and Ito)."""

COLOURS = ("#000000", "#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#56B4E9")
