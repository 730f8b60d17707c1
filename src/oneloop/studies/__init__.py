"""The founding documents' claims, each a run that ends in a picture and a verdict."""

from oneloop.studies import baselines, chain, clip, dpo_ppo, entropy, lengths, pairs, proxy, spread, staleness, trust
from oneloop.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        baselines.STUDY, spread.STUDY, lengths.STUDY, clip.STUDY, trust.STUDY, entropy.STUDY, staleness.STUDY,
        chain.STUDY, pairs.STUDY, dpo_ppo.STUDY, proxy.STUDY,
    )
}  # fmt: skip
"""In the order of the overview."""

__all__ = ["STUDIES", "Study"]
