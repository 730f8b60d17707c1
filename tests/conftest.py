"""Shapes and types are checked in tests only: jaxtyping + beartype see every call into oneloop."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

# an int is a float, as PEP 484 has it
install_import_hook("oneloop", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import torch  # noqa: E402

torch.set_num_threads(1)

from hypothesis import settings  # noqa: E402

# the same examples every time, however busy the machine is
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
