"""What the CORE evaluation (DataComp-LM, arXiv:2406.11794) says of its files, by file name.

Shots as in DCLM's eval/heavy.yaml; chance only where its eval_meta_data.csv differs from one over
the number of choices (boolq and commonsense_qa: the most frequent answer). A file that is not
named here has no shots of its own and a blank between context and continuation.
"""

from __future__ import annotations

ANSWER = "\nAnswer: "
DELIMITERS = dict.fromkeys(
    ("arc_easy", "arc_challenge", "boolq", "gpqa_diamond", "gpqa_main", "jeopardy_all")
    + ("jeopardy_small", "logi_qa", "mmlu", "piqa"),
    ANSWER,
)
CHANCE = {"boolq": 0.62, "commonsense_qa": 0.403, "math_qa": 0.2}
CHANCE |= {"bigbench_conceptual_combinations": 0.33}
_TEN = """arc_challenge arc_easy bigbench_conceptual_combinations bigbench_cs_algorithms
bigbench_dyck_languages bigbench_elementary_math_qa bigbench_language_identification
bigbench_logical_deduction bigbench_misconceptions bigbench_novel_concepts bigbench_operators
bigbench_qa_wikidata bigbench_repeat_copy_logic bigbench_strange_stories bigbench_strategy_qa
bigbench_understanding_fables boolq commonsense_qa enterprise_pii_classification hellaswag
jeopardy_all jeopardy_small logi_qa math_qa piqa pubmed_qa_labeled simple_arithmetic_nospaces
simple_arithmetic_withspaces siqa squad winogender_mc_female winogender_mc_male"""
_THREE = """agi_eval_lsat_ar agi_eval_lsat_lr agi_eval_lsat_rc agi_eval_sat_en agi_eval_sat_math
aqua bbq gsm8k svamp triviaqa_sm_sub triviaqa_small"""
SHOTS = dict.fromkeys(_TEN.split(), 10) | dict.fromkeys(_THREE.split(), 3)
SHOTS |= dict.fromkeys(("gpqa_diamond", "gpqa_main", "mmlu"), 5)


def delimiter(name: str) -> str:
    """What stands between context and continuation in the file of that name."""
    return DELIMITERS.get(name, " ")


def chance(name: str, choices: list[int]) -> float:
    """The share a guess gets right: as CORE counts it, else the mean of one over the choices."""
    if name in CHANCE:
        return CHANCE[name]
    return sum(1 / n for n in choices) / len(choices) if choices else 0.0


def centred(score: float, guess: float) -> float:
    """CORE's centred accuracy: 0 for a guess, 1 for all right."""
    return (score - guess) / (1 - guess) if guess < 1 else 0.0
