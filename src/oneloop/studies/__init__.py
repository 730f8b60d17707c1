"""The founding documents' claims, each a run that ends in a picture and a verdict."""

from oneloop.studies import (
    baselines,
    chain,
    clip,
    critic,
    dapo,
    entropy,
    lengths,
    memory,
    pairs,
    proxy,
    sparse,
    spread,
    staleness,
    trust,
)
from oneloop.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        baselines.STUDY, spread.STUDY, lengths.STUDY, clip.STUDY, trust.STUDY, entropy.STUDY, staleness.STUDY,
        chain.STUDY, pairs.STUDY, proxy.STUDY,
        critic.STUDY, sparse.STUDY, dapo.STUDY, memory.STUDY,
    )
}  # fmt: skip
"""In the order of the overview."""

__all__ = ["STUDIES", "Study"]
