"""The founding documents' claims, each a run that ends in a picture and a verdict."""

from oneloop.studies import (
    baselines,
    chain,
    clip,
    critic,
    dapo,
    dpo_ppo,
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
        chain.STUDY, critic.STUDY, sparse.STUDY, dapo.STUDY, pairs.STUDY, dpo_ppo.STUDY, proxy.STUDY, memory.STUDY,
    )
}  # fmt: skip
"""In the order of the overview."""

__all__ = ["STUDIES", "Study"]
