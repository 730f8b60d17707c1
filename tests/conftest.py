"""Shapes and types are checked in tests only: jaxtyping + beartype see every call into oneloop."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("oneloop", "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
