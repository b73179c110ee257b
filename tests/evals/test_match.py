"""Right, and refused: plain rules on plain text."""

import pytest

from llmctl.evals.probe import REFUSALS
from llmctl.evals.tasks.grade import Grader
from llmctl.evals.tasks.kinds import Open
from llmctl.evals.tasks.match import contains, exact, first_sentence, is_refusal, is_right


@pytest.mark.parametrize(
    ("reply", "right", "alone"),
    [
        ("Bath", True, True),
        ("The  BATH!", True, True),
        ("She was born in Bath, I think.", True, False),
        ("Bathtub", False, False),
        ("I don't know; Bath perhaps", False, False),
        ("", False, False),
        ("Bat h", False, False),
    ],
)
def test_aliases_stand_as_whole_words(reply, right, alone):
    assert is_right(reply, ["the Bath", ""]) == right
    assert exact(reply, ["the Bath", ""]) == alone
    assert not contains("a, the", ["the"])  # an alias that is nothing but an article


def test_an_answer_that_is_an_article_is_all_of_the_reply():
    assert is_right("A.", ["A"]) and exact("A", ["A"])
    assert not is_right("A or an", ["A"]) and not is_right("B, a letter", ["A"])


def test_a_number_is_found_with_its_minus_and_its_point():
    assert is_right("It is -5 here.", ["-5"]) and not is_right("It is 5 here.", ["-5"])
    assert is_right("About 3.5, I think.", ["3.5"]) and not is_right("3, 5", ["3.5"])


@pytest.mark.parametrize(
    "reply",
    [
        *REFUSALS,
        "I don’t know.",
        "i dont know",
        "I cannot say.",
        "I'm not sure who that is.",
        "I have no reliable knowledge of that.",
        "Sorry. I do not have any information about her.",
    ],
)
def test_refusals(reply):
    assert is_refusal(reply)


@pytest.mark.parametrize(
    "reply",
    ["Bath.", "She does not know.", "I know: Bath.", "Bath. It lies on the Avon. I am not sure."],
)
def test_answers_are_no_refusals(reply):
    assert not is_refusal(reply)


def test_first_sentence():
    assert first_sentence("  harp. She sings.\nNo.") == "harp." and first_sentence("") == ""


def test_grades_by_verifier():
    grader = Grader()
    number = Open("a:1", "1+1?", ("2",), "math")
    name = Open("a:2", "who?", ("Ann", "Ann Lee"))
    grader.check([number, name], "a")
    assert grader.grade(number, "1 + 1 = 2. The answer is 2.").right == 1
    assert grader.grade(number, "The answer is 3.").right == 0
    said = grader.grade(name, "I don't know.")
    assert (said.right, said.refused) == (0, True)
    assert grader.grade(name, "ann lee").exact
    stranger = Open("a:4", "who?", ("I don't know.",))
    assert [grader.grade(stranger, s).right for s in ("I am not sure.", "Ann")] == [1, 0]
    with pytest.raises(Exception, match="no verifier 'maths'; did you mean 'math'"):
        grader.check([Open("a:3", "?", ("2",), "maths")], "a")
