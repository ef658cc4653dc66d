r"""LaTeX of the tutorials as a line of Unicode, for a terminal: \frac{a_j}{\sqrt D} is aⱼ / √D."""

import re


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
OPENED, CLOSING = "\ue000", "\ue001"  # beside a sign that has no white space on its inner side
SIGNS = {
    **_pairs("alpha α beta β delta δ epsilon ε kappa κ lambda λ mu μ xi ξ rho ρ sigma σ tau τ phi φ ell ℓ"),
    **_pairs("sum ∑ prod ∏ infty ∞ cdot · odot ⊙ perp ⊥ top ⊤ pm ± in ∈ le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈"),
    **_pairs("Phi Φ Sigma Σ simeq ≃ Rightarrow ⇒ to → dots … cdots ⋯"),
    **_pairs(f"langle ⟨{OPENED} lVert ‖{OPENED} lceil ⌈{OPENED} rangle {CLOSING}⟩ rVert {CLOSING}‖ rceil {CLOSING}⌉"),
    **{"quad": "\u2003", "qquad": "\u2003", ",": " ", ";": " ", " ": " ", "\\": "\n"},
    **dict.fromkeys(("left", "right", "big", "Big"), ""),
}
WORDS = {"max", "min", "exp", "log", "cos", "sin", "cosh"}
ACCENTS = {"tilde": "\u0303", "bar": "\u0304", "hat": "\u0302"}
TEXTS = {"text", "mathrm", "operatorname"}
LOW = dict(zip("0123456789+-=()aehijklmnoprstuvxβρφ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵨᵩ", strict=True))
HIGH = dict(zip("0123456789+-=()abdehijklmnoprstuvwxyzH", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᵈᵉʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴴ", strict=True))
HIGH |= {"⊤": "ᵀ", "*": "*"}
FRACTIONS = {("1", "2"): "½", ("1", "4"): "¼", ("1", "8"): "⅛"}
FACTOR = re.compile(r"\w[\w′!\u0300-\u036f]*|[^\W\d]\w*\([^()]*\)|\([^()]*\)[²³ᵗ]?|\|[^|]*\||⟨[^⟩]*⟩|√(\w+|\([^()]*\))")
RELATIONS = "·≤≥∈≠≈≃⇒⊙"
ENDS = re.compile(r"$|[-+=<>,.;:)\]}…]|\\(q?quad|leq?|geq?|approx|simeq|Rightarrow|right)\b")


def unicode_math(latex: str) -> str:
    r"""Mathematics in LaTeX -> one line of Unicode. A command that is not known becomes its name.

    Examples
    --------
    >>> unicode_math(r"f(x) = \sum_j v_j \frac{\langle \Phi(x), \Phi(k_j) \rangle}{h(x)} + b")
    'f(x) = ∑ⱼ vⱼ ⟨Φ(x), Φ(kⱼ)⟩ / h(x) + b'
    >>> unicode_math(r"\frac1N \sum_{j \in g} e^{x \cdot k_j / \sqrt D}")
    '(1 / N) ∑_(j ∈ g) e^(x · kⱼ / √D)'
    """
    text = _Reader(TOKEN.findall(latex)).expression()
    text = re.sub(rf"\s*([{RELATIONS}])\s*", r" \1 ", text)
    text = re.sub(rf"{OPENED}\s*|\s*{CLOSING}|(?<=\()\s+|\s+(?=\))", "", text)
    text = re.sub(r"[ \t\n]+", " ", text).strip()
    return re.sub(r" ?\u2003 ?", "    ", text)


class _Reader:
    """Tokens, read from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place = tokens, 0

    def expression(self) -> str:
        """Up to the end, or to the brace that closes the group."""
        text = ""
        while self.place < len(self.tokens) and self.tokens[self.place] != "}":
            token = self.tokens[self.place]
            if token in "_^":
                self.place += 1
                text = text.rstrip() + _script(self.argument(), token)
            else:
                piece = self.atom()
                starts_a_word = token[1:] in WORDS and text[-1:].isalnum()
                text += " " + piece if starts_a_word else piece
        return text

    def atom(self) -> str:
        """A sign, a group, or a command with its arguments."""
        token = self.tokens[self.place]
        self.place += 1
        name = token[1:]
        if token == "{":
            text = self.expression()
            self.place += 1
            return text
        if not name or token.isspace():
            return {"'": "′"}.get(token, token)
        if name in ("frac", "tfrac"):
            return self._fraction()
        if name in ACCENTS:
            return self.argument() + ACCENTS[name]
        if name in TEXTS:
            return self._verbatim()
        if name == "sqrt":
            radicand = self.argument()
            return f"√{radicand}" if re.fullmatch(r"\w+", radicand) else f"√({radicand})"
        if name == "binom":
            return f"({self.argument()} choose {self.argument()})"
        if name == "underbrace":
            return self._underbrace()
        return SIGNS.get(name, name)

    def argument(self) -> str:
        """What a command or a script applies to: the next token that is not white space."""
        while self.tokens[self.place].isspace():
            self.place += 1
        return self.atom().strip()

    def _fraction(self) -> str:
        """a / b; in parentheses where a factor follows."""
        above, below = self.argument(), self.argument()
        if (above, below) in FRACTIONS:
            return FRACTIONS[above, below]
        text = f"{_factor(above)} / {_factor(below)}"
        rest = re.sub(r"^(\s|\\[,;])+", "", "".join(self.tokens[self.place :]))
        return text if ENDS.match(rest) else f"({text}) "

    def _verbatim(self) -> str:
        """The words of \text{...}."""
        end = self.tokens.index("}", self.place)
        words = "".join(self.tokens[self.place + 1 : end])
        self.place = end + 1
        return words

    def _underbrace(self) -> str:
        """\\underbrace{a}_{b}: a, with b in brackets."""
        text = self.argument()
        self.place += 1  # the sign _
        return f"{text} [{self.argument()}]"


def _factor(text: str) -> str:
    """Text in parentheses, unless it is one factor."""
    return text if FACTOR.fullmatch(text) else f"({text})"


def _script(text: str, sign: str) -> str:
    table = LOW if sign == "_" else HIGH
    if all(character in table for character in text):
        return "".join(table[character] for character in text)
    return sign + (text if len(text) == 1 or (sign == "_" and text.isalpha()) else f"({text})")
