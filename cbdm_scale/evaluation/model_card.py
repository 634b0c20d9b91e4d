"""The model card: what a network learnt, by which objective, and how good its images are."""

from collections.abc import Mapping
from pathlib import Path

from cbdm_scale.data.manifest import Manifest
from cbdm_scale.evaluation.report.missing import missing_words
from cbdm_scale.evaluation.results import Evaluation
from cbdm_scale.pretrained.network import PretrainedNetwork


def write_card(
    pretrained: PretrainedNetwork,
    real: Manifest | None,
    evaluation: Evaluation | None,
    for_others: Mapping[str, list[str]],
) -> str:
    """README.md of an exported network, in Markdown.

    real: the training set; None where it is not at hand
    evaluation: of these weights; None if there is none
    for_others: file or folder of the export -> lines about it, for people
    """
    from cbdm_scale.evaluation.report.rendering import environment

    copies = evaluation.best.memorisation if evaluation else ()
    chance = evaluation.held_out_copies if evaluation else ()
    template = environment(Path(__file__).parent / "templates").get_template("model_card.md.j2")
    return template.render(
        pretrained=pretrained,
        real=real,
        evaluation=evaluation,
        for_others=for_others,
        copies={row.group: row.copies for row in copies},
        chance={row.group: row.copies for row in chance},
        missing=missing_words(evaluation) if evaluation else (),
    )
