"""docs/rules.md says of rules and pre-steps what the code says."""

import re
from math import isfinite
from pathlib import Path

import pytest

from byzsgd.aggregation import PRE_STEPS, RULES, PreStep, Rule, compose

DOCUMENT = Path(__file__).parents[2] / "docs" / "rules.md"


def rule_line(rule: Rule) -> str:
    """A rule's line of the table."""
    assert rule.kappa is not None
    kappa = "" if rule.check(10, 3) else f"{rule.kappa(10, 3):.1f}".replace("inf", "")
    cells = (f"`{rule.name}`", f"`{rule.check}`", rule.kappa_formula, kappa)
    return f"| {' | '.join((*cells, rule.cost, rule.use, rule.paper))} |"


def pre_step_line(step: PreStep) -> str:
    """A pre-step's line of the table."""
    needs = f"{step.per_f} f + 1" if step.per_f else "1"
    cells = (f"`{step.name}`", f"`{needs}`", step.kappa_formula, step.cost, step.use, step.paper)
    return f"| {' | '.join(cells)} |"


def lines(document: str, table: str) -> list[str]:
    """The lines of the table whose first column has a title."""
    found = re.search(rf"^\| {table} \|.*\n\|[- |]+\|\n((?:\|.*\n)+)", document, re.MULTILINE)
    assert found, table
    return found[1].splitlines()


def test_the_table_of_rules_is_the_code_s() -> None:
    """Name, bound, kappa, cost, use and paper of every rule, in the order of the code."""
    assert lines(DOCUMENT.read_text(), "rule") == [rule_line(rule) for rule in RULES.values()]


def test_the_table_of_pre_steps_is_the_code_s() -> None:
    """Name, bound, kappa, cost, use and paper of every pre-step, in the order of the code."""
    found = lines(DOCUMENT.read_text(), "pre-step")

    assert found == [pre_step_line(step) for step in PRE_STEPS.values()]


def calculated(formula: str, n: int, f: int) -> float:
    """The value of a formula as the documentation writes it."""
    text = formula.replace("^", "**")
    # A space between two factors, neither side an operator, is a multiplication.
    text = re.sub(r"(?<=[\dnf)]) (?=[\dnf(])", " * ", text)
    return float(eval(text, {"n": n, "f": f}))


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_formulas_are_what_is_computed(rule: Rule) -> None:
    """The coefficient in symbols is the coefficient in code."""
    assert rule.kappa is not None
    for n, f in ((11, 2), (7, 1), (40, 9)):
        if isfinite(rule.kappa(n, f)):
            assert calculated(rule.kappa_formula, n, f) == pytest.approx(rule.kappa(n, f))


def test_the_formula_of_mixing_is_what_is_computed() -> None:
    """That of nnm, whose kappa is that of what follows."""
    for rule in ("mda", "trimmed_mean"):
        chain = compose(["nnm"], rule)
        follows = RULES[rule].kappa
        assert chain.kappa is not None
        assert follows is not None
        formula = PRE_STEPS["nnm"].kappa_formula.replace("kappa", str(follows(11, 2)))

        assert calculated(formula, 11, 2) == pytest.approx(chain.kappa(11, 2))
