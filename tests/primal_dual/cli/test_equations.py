"""Equations as a line of Unicode: nothing changes its meaning when braces go."""

import re

import pytest

from primal_dual.cli import equations
from primal_dual.cli.equations import unicode_math
from primal_dual.io.text import spelled_out


@pytest.mark.parametrize(
    "latex, text",
    [
        (r"v_j = (\alpha_j - \tilde\alpha_j) / h(k_j)", "vⱼ = (αⱼ - α\u0303ⱼ) / h(kⱼ)"),
        (r"y_{jd}, z_{i+1}, x^{-1}, Z^\top", "y_jd, zᵢ₊₁, x⁻¹, Zᵀ"),
        (r"\frac12 |W|^2", "½ |W|²"),
        (r"\frac{a + b}{c}", "(a + b) / c"),
        (r"\frac1{N}\sum_j k_j", "(1 / N) ∑ⱼ kⱼ"),
        (r"\frac{|x|}{h(x)}\,\sqrt{2 (P - Q)} + 1", "(|x| / h(x)) √(2 (P - Q)) + 1"),
        (r"\frac{1}{i + 1} \;\simeq\; 0", "1 / (i + 1) ≃ 0"),
        (r"\sqrt{p (1 - p)} \qquad \sqrt D", "√(p (1 - p))    √D"),
        (r"e^{a_j}, e^{x\cdot k_j/\sqrt D}, e^\infty", "e^(aⱼ), e^(x · kⱼ/√D), e^∞"),
        (r"\max_{j \in S} \left( -\lVert x_j \rVert \right)", "max_(j ∈ S) (-‖xⱼ‖)"),
        (r"\sum_d\cos x_d, \binom{D+T}{T}", "∑_d cos x_d, (D+T choose T)"),
        (r"\underbrace{a + b}_{\text{the sum}}", "a + b [the sum]"),
        (r"\operatorname{Attention-BN}(q, k') \unknown", "Attention-BN(q, k′) unknown"),
    ],
)
def test_equations(latex, text):
    assert unicode_math(latex) == text


def test_every_sign_has_a_spelling_in_ascii():
    signs = "".join([*equations.SIGNS.values(), *equations.LOW.values(), *equations.HIGH.values(), "½⅛√•±─"])
    signs = re.sub(f"[{equations.OPENED}{equations.CLOSING}]", "", signs)
    assert [sign for sign in signs if "?" in spelled_out(sign)] == []
    assert spelled_out("α̃ ≠ √D, ⟨Φ(x), κ⟩ café") == "alpha~ != sqrt D, <Phi(x), kappa> cafe"
    assert (
        spelled_out(unicode_math(r"\hat y - \bar k_i = \lambda \Lambda^{-1} / \tfrac12"))
        == "y^ - k_bari = lambda Lambda-1 / 1/2"
    )
    assert spelled_out("señor São Paulo") == "senor Sao Paulo"
