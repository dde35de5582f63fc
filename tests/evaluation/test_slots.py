"""Slots of restaurant descriptions: meanings in two notations, phrasings, and kinds of errors."""

import pytest

from textdiff.evaluation.slots import SlotErrors, parse_meaning

MEANING = (
    "name : The Rice Boat | Type : pub | price : £ 20 - 25 | customer rating : 5 out of 5 | "
    "near : Raja Indian Cuisine | food : Fast food | area : city centre | family friendly : no"
)
RELEASE = (
    "name[The Rice Boat], eatType[pub], priceRange[£20-25], customer rating[5 out of 5], "
    "near[Raja Indian Cuisine], food[Fast food], area[city centre], familyFriendly[no]"
)
RIGHT = (
    "In the city centre near Raja Indian Cuisine, The Rice Boat is a pub with burgers for "
    "£20-25. Rated 5 out of 5, it isn't for children."
)


def counts(meaning: str, text: str) -> tuple[int, int, int, int]:
    parsed, others = parse_meaning(meaning), "name : Aromi | near : Café Rouge"
    assert parsed
    return tuple(SlotErrors([parsed, parse_meaning(others)])(parsed, text))


def test_both_notations_are_the_same_meaning() -> None:
    assert parse_meaning(MEANING) == parse_meaning(RELEASE)
    assert len(parse_meaning(RELEASE)) == 8


@pytest.mark.parametrize(
    "text",
    ["", "the king", "food : Thai | name : X", "name : X | colour : red", "food[Italian]", "name["],
)
def test_other_sources_are_no_meanings(text: str) -> None:
    assert parse_meaning(text) is None


def test_right_description_has_no_errors() -> None:
    assert counts(MEANING, RIGHT) == (8, 0, 0, 0)
    assert counts(RELEASE, RIGHT.replace("-", " - ").lower()) == (8, 0, 0, 0)


@pytest.mark.parametrize(
    ("before", "after", "errors"),
    [
        ("with burgers ", "", (1, 0, 0)),
        ("The Rice Boat", "it", (1, 0, 0)),
        ("The Rice Boat", "Aromi", (0, 1, 0)),
        ("near Raja Indian Cuisine", "near Cafe Rouge", (0, 1, 0)),
        ("In the city centre", "By the river", (0, 1, 0)),
        ("£20-25", "less than £20", (0, 1, 0)),
        ("isn't for", "welcomes", (0, 1, 0)),
        ("burgers", "burgers and curry", (0, 0, 1)),
        ("near", "by the river near Café Rouge and", (0, 0, 2)),
        ("pub", "restaurant", (1, 0, 0)),
    ],
)
def test_errors_are_of_three_kinds(before: str, after: str, errors: tuple[int, int, int]) -> None:
    assert before in RIGHT
    assert counts(MEANING, RIGHT.replace(before, after)) == (8, *errors)


def test_values_of_other_slots_are_invented() -> None:
    assert counts("name : Aromi", "Aromi is a cheap restaurant by the river.") == (1, 0, 0, 2)


def test_names_are_not_values() -> None:
    text = "Aromi is near Café Rouge and Raja Indian Cuisine"
    parsed = parse_meaning("name : Aromi | near : Café Rouge")
    found = SlotErrors([parsed, parse_meaning(MEANING)])(parsed, text)
    assert found == (2, 0, 0, 1)


@pytest.mark.parametrize(
    ("price", "rating", "phrase"),
    [
        ("cheap", "high", "low priced, with a high customer rating"),
        ("less than £ 20", "average", "of average ratings and for less than £20"),
        ("high", "low", "not cheap, and badly rated"),
        ("moderate", "5 out of 5", "in the average price range and highly rated"),
        ("more than £ 30", "3 out of 5", "more than 30 pounds and 3 out of 5 stars"),
        ("high", "1 out of 5", "rated 1 out of 5 stars in the high price range"),
        ("cheap", "average", "with moderate customer ratings and low prices"),
        ("moderate", "high", "with prices that are moderate and a high customer rating"),
    ],
)
def test_adjectives_belong_to_price_or_rating(price: str, rating: str, phrase: str) -> None:
    meaning = f"name : Aromi | price : {price} | customer rating : {rating}"
    assert counts(meaning, f"Aromi is {phrase}.") == (3, 0, 0, 0)


@pytest.mark.parametrize(
    ("value", "phrase"),
    [
        ("yes", "not only child - friendly"),
        ("yes", "not well known, but for families"),
        ("no", "not a place for kids or families with children"),
        ("no", "adults only"),
        ("no", "child unfriendly"),
    ],
)
def test_negation_decides_about_families(value: str, phrase: str) -> None:
    meaning, other = (f"name : Aromi | family friendly : {v}" for v in (value, "no"))
    assert counts(meaning, f"Aromi is {phrase}") == (2, 0, 0, 0)
    assert counts(other, f"Aromi is {phrase}") == (2, 0, value == "yes", 0)
