from routedk.programs.teachers.rule_distiller import merge_rules
from routedk.types import Provenance, Rule

TEXTS = [
    "Bundle kettles with cups.",
    "Chargers complete phones.",
    "Kettles with cups: bundle.",
    "Tents need pegs.",
]


def rule(text: str, *sessions: str, tokens: int = 1, cost: float = 0.25) -> Rule:
    source = Provenance(teacher="t", sessions=sessions, prompt_hash="h", tokens=tokens, cost=cost)
    return Rule(text=text, provenance=source)


def test_near_duplicates_fall_together_and_frequent_ones_come_first() -> None:
    rules = [
        rule(TEXTS[1], "a"),
        rule(TEXTS[0], "a", tokens=3),
        rule(TEXTS[2], "b", tokens=4),
        rule(TEXTS[3], "c"),
    ]
    merged = merge_rules(rules, limit=9)
    assert [r.text for r in merged] == [TEXTS[0], TEXTS[1], TEXTS[3]]
    assert merged[0].provenance == Provenance(
        teacher="t", sessions=("a", "b"), prompt_hash="h", tokens=7, cost=0.5
    )


def test_the_list_is_bounded() -> None:
    rules = [rule(text, "a") for text in TEXTS[1:]]
    assert len(merge_rules(rules, limit=2)) == 2
    assert merge_rules(rules, limit=0) == ()
    assert merge_rules([], limit=2) == ()
    assert merge_rules(rules[:1], limit=2) == (rules[0],)
