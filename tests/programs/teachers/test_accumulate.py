import pytest

from routedk.data.knowledge_file import sources_of
from routedk.errors import SettingError
from routedk.programs.teachers.accumulate import accumulate, of_domain
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, TeacherAnswer, Thought


def made(*sessions: str, teacher: str = "annotation", cost: float = 0.0) -> Provenance:
    return Provenance(teacher=teacher, sessions=sessions, tokens=len(sessions), cost=cost)


def pattern(*categories: str, support: float = 0.1, by: Provenance) -> Pattern:
    return Pattern(categories=categories, support=support, confidence=0.5, lift=2.0, provenance=by)


CLOTHING = KnowledgeBase(
    patterns=(pattern("Boots", "Socks", by=made("1", "2")),),
    rules=(Rule(text="For a hike, bundle boots with socks.", provenance=made("1")),),
    thoughts=(Thought(session_id="1", text="1 hike; 2 hike", provenance=made("1")),),
)
ELECTRONIC = KnowledgeBase(
    patterns=(pattern("Cameras", "Lenses", by=made("1")),),
    rules=(Rule(text="For photos, bundle camera with lens.", provenance=made("12", "1")),),
    thoughts=(
        Thought(session_id="1", text="1 photo; 2 photo", provenance=made("1")),
        Thought(session_id="12", text="1 video; 2 video", provenance=made("12")),
    ),
)


def test_nothing_of_one_base_is_lost() -> None:
    assert accumulate([CLOTHING]) == CLOTHING
    assert accumulate([CLOTHING, CLOTHING]).thoughts == CLOTHING.thoughts
    assert accumulate([]) == KnowledgeBase()


def test_formats_of_one_domain_come_together() -> None:
    patterns = KnowledgeBase(patterns=CLOTHING.patterns)
    rest = KnowledgeBase(rules=CLOTHING.rules, thoughts=CLOTHING.thoughts)
    assert accumulate([patterns, rest]) == CLOTHING


def test_equal_patterns_are_kept_once_with_the_sources_of_both() -> None:
    other = KnowledgeBase(
        patterns=(
            pattern("Socks", "Boots", support=0.9, by=made("2", "3", teacher="gpt", cost=0.5)),
            pattern("Boots", "Socks", "Coats", by=made("4")),
        )
    )
    both = accumulate([CLOTHING, other]).patterns
    assert [p.categories for p in both] == [("Boots", "Socks"), ("Boots", "Socks", "Coats")]
    assert both[0].support == 0.1
    assert both[0].provenance == Provenance(
        teacher="annotation + gpt", sessions=("1", "2", "3"), tokens=4, cost=0.5
    )


def test_rules_with_the_same_text_are_kept_once() -> None:
    texts = ["for a hike, bundle BOOTS with socks.", "For a hike, bundle boots with coats."]
    other = KnowledgeBase(rules=tuple(Rule(text=text, provenance=made("9")) for text in texts))
    both = accumulate([CLOTHING, other]).rules
    assert [rule.text for rule in both] == [CLOTHING.rules[0].text, texts[1]]
    assert both[0].provenance.sessions == ("1", "9")


def test_the_first_thought_of_a_session_is_kept() -> None:
    later = Thought(session_id="1", text="1 winter; 2 winter", provenance=made("1"))
    assert accumulate([CLOTHING, KnowledgeBase(thoughts=(later,))]).thoughts == CLOTHING.thoughts


def test_knowledge_of_another_domain_never_meets_the_sessions_of_this_one() -> None:
    both = accumulate([CLOTHING, of_domain(ELECTRONIC, "Electronic")])
    assert {thought.session_id: thought.text for thought in both.thoughts} == {
        "1": "1 hike; 2 hike",
        "Electronic:1": "1 photo; 2 photo",
        "Electronic:12": "1 video; 2 video",
    }
    assert [rule.text for rule in both.rules] == [
        CLOTHING.rules[0].text,
        ELECTRONIC.rules[0].text,
    ]
    assert sources_of(both) == {"1", "2", "Electronic:1", "Electronic:12"}


def test_what_both_domains_say_has_the_sources_of_both() -> None:
    same = KnowledgeBase(rules=(replace_source(CLOTHING.rules[0], "7"),))
    (rule,) = accumulate([CLOTHING, of_domain(same, "food")]).rules
    assert rule.provenance.sessions == ("1", "food:7")


def replace_source(rule: Rule, session: str) -> Rule:
    return Rule(text=rule.text, provenance=made(session))


def test_answers_come_along() -> None:
    answer = TeacherAnswer(session_id="1", bundles=(), provenance=made("1"))
    base = KnowledgeBase(answers=(answer,))
    both = accumulate([base, base, of_domain(base, "food")]).answers
    assert [(a.session_id, a.provenance.sessions) for a in both] == [
        ("1", ("1",)),
        ("food:1", ("food:1",)),
    ]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a=b"])
def test_names_of_domains_are_plain(name: str) -> None:
    with pytest.raises(SettingError, match=r"names are of letters, digits, _, \. and -"):
        of_domain(ELECTRONIC, name)
