"""Names of people, places and firms: English-sounding, distinctive, never used twice."""

from __future__ import annotations

import functools
from random import Random

from llmctl.synth.lexicon import lexicon

WOMEN = (
    "Ada Agnes Alice Amelia Anna Beatrice Bertha Bridget Cara Cecily Clara Constance Cora Daphne "
    "Delia Dora Edith Elena Elsie Emma Esther Eva Fiona Flora Frances Gemma Gloria Grace Greta "
    "Hanna Harriet Hazel Helen Hilda Ida Ingrid Irene Iris Isabel Ivy Jane Joan Judith Julia Karin "
    "Kate Laura Lena Lily Lois Lucy Lydia Mabel Maeve Margot Marta Matilda Maud Mercy Mina Miriam "
    "Molly Nancy Nell Nina Nora Olga Olive Opal Orla Paula Pearl Petra Phoebe Polly Rachel Rhoda "
    "Rita Rosa Ruth Sally Selma Sonia Stella Susan Sylvia Tessa Thea Ursula Vera Viola Wanda "
    "Willa Winifred Yvonne Zelda"
).split()
MEN = (
    "Abel Adam Albert Alec Amos Andrew Arthur Basil Ben Bernard Boris Bruno Caleb Carl Cecil "
    "Charles Clement Conrad Cyril Daniel David Dennis Dominic Edgar Edmund Edwin Eli Emil Eric "
    "Ernest Ezra Felix Francis Frank Fred George Gilbert Gordon Gregory Gus Harold Henry Herbert "
    "Hector Hugo Humphrey Ian Isaac Ivan Jacob James Jasper Joel John Jonas Joseph Julian Karl "
    "Kenneth Laurence Leo Leonard Lewis Lionel Luke Magnus Marcus Martin Matthew Max Miles Morris "
    "Nathan Neil Nicholas Noah Norman Oliver Oscar Oswald Otto Owen Patrick Paul Percy Peter "
    "Philip Ralph Reuben Robert Roger Rufus Rupert Samuel Saul Silas Simon Stephen Theodore "
    "Thomas Tobias Victor Vincent Walter Wilfred"
).split()
_HEADS = (
    "Arken Asp Barr Bex Birk Blay Bram Brock Brun Cald Carr Chis Clav Corb Crom Cull Dabb Dain "
    "Dray Dun Ebb Eck Fal Farn Fen Fitch Flax Frob Gal Garn Gild Glin Gorr Grim Hadd Hask Hel Hob "
    "Holl Hux Ister Jarr Jess Kell Ken Kip Lamb Lang Lark Lind Lodd Lorr Mab Mard Mell Mick Mord "
    "Nab Nark Nett Nock Norr Odd Ost Pad Parr Pell Pick Plum Prid Quar Quill Rad Ramm Rand Rook "
    "Rudd Sall Scar Sedge Shel Skel Snell Sperr Stan Stell Swin Tab Tarr Tem Thorn Tid Toll Trev "
    "Tull Ux Vell Venn Vick Wad Warr Wend Whit Wick Wym Yar Yell Zim"
).split()
_TAILS = (
    "aby acre ager ander ard away bank beck by combe cote den dike ell erby erley field fold ford "
    "gate grave ham ier ifer ing ington land ley lock low man mere more ney nor over pool ridge "
    "rose sby sey shaw smere son stead ster stone thorpe tin tree vale wall ward water way well "
    "wick wood worth"
).split()
_PLACE_HEADS = (
    "Amber Ash Barrow Bell Black Bright Broad Cold Copper Crow Dark Deep Dun East Elder Fair Fern "
    "Flint Fox Gold Green Grey Hare Harrow Haw High Iron Kings Lin Long Low Maple Marsh Mid Mill "
    "Moor Moss North Oak Otter Pine Raven Red Rush Salt Sand Silver South Stag Stone Sun Swan "
    "Thorn Weather West White Wild Winter Wolf"
).split()
_PLACE_TAILS = (
    "borough bourne bridge brook burn bury castle church cliff combe cross dale den down ey field "
    "ford gate grove ham haven hill holt hurst leigh low market mere minster mouth pool port reach "
    "stead ton wick"
).split()
RIVERS = (
    "Alver Arrel Belm Brant Brindle Calder Carrow Corve Dallow Derne Eddle Elver Fenner Frome "
    "Garrel Gelt Harle Hodder Inver Irt Jarrow Kenner Kerne Lathe Leddon Linnet Lorne Marl Medley "
    "Minnow Nadder Nethe Orrin Ouzel Pellet Perrin Quern Rattle Rill Rother Sabel Skerne Sorrel "
    "Tamber Tarn Tessel Umber Vennel Wend Yarrow"
).split()


def _compounds(heads: list[str], tails: list[str]) -> list[str]:
    """Every head + tail that reads well: no letter three times, no doubled seam."""
    words = []
    for head in heads:
        for tail in tails:
            word = head + tail
            low = word.lower()
            tripled = any(a == b == c for a, b, c in zip(low, low[1:], low[2:]))
            if not tripled and head[-1] != tail[0] and head.lower() != tail:
                words.append(word)
    return words


@functools.cache
def _values() -> tuple[str, ...]:
    lists = ("trade", "instrument", "dish", "pet", "product", "goods")
    words = {word.lower() for name in lists for word in lexicon()[name]}
    return tuple(sorted(word for word in words if len(word) > 3))


def _clean(words: list[str], rng: Random) -> list[str]:
    """Shuffled, without names that are or begin with a fact's value (they would give it away)."""
    kept = [word for word in words if not word.lower().startswith(_values())]
    rng.shuffle(kept)
    return kept


class NamePool:
    """All names of one world, drawn without replacement in an order that the seed decides."""

    def __init__(self, seed: int) -> None:
        rng = Random(f"names {seed}")
        surnames = _clean(_compounds(_HEADS, _TAILS), rng)
        self.towns = _clean(_compounds(_PLACE_HEADS, _PLACE_TAILS), rng)
        self.rivers = _clean(list(RIVERS), rng)
        self.common_surnames = [surnames.pop() for _ in range(400)]
        self._surnames = surnames

    def surname(self) -> str:
        """A surname nobody else in the world has."""
        if not self._surnames:
            raise ValueError("the synthetic world has no surname left: ask for fewer facts")
        return self._surnames.pop()

    def place(self) -> str:
        """A village's name nobody else has."""
        if not self.towns:
            raise ValueError("the synthetic world has no place name left: ask for fewer facts")
        return self.towns.pop()


def first_name(rng: Random) -> tuple[str, bool]:
    """A first name, and whether it is a woman's."""
    woman = rng.random() < 0.5
    names = WOMEN if woman else MEN
    return names[int(rng.random() * len(names))], woman
