"""What every test runs in: a Hub of its own on this machine, an empty HF_HOME, and quiet libraries.

The Hub's clients read their settings when they are imported. They are set here, before that: no test reaches
the network or the user's caches, and a Hub id that no test uploaded is an unknown repository.
"""

import os
import shutil
import sys
import tempfile
import warnings

import pytest

sys.path.insert(0, os.path.dirname(__file__))  # importlib mode does not: the tests' helpers are plain modules
from fake_hub import TOKEN, FakeHub  # noqa: E402

if "huggingface_hub" in sys.modules:
    raise RuntimeError(
        "huggingface_hub was imported before tests/conftest.py could point it to the tests' Hub"
    )

HUB_UPLOAD_WARNING = "Use 'content="  # httpx to huggingface_hub 2.4, about how it uploads large files
_HUB = FakeHub()
_HOME = tempfile.mkdtemp(prefix="vistok-tests-")
_ENVIRONMENT = {
    "HF_ENDPOINT": _HUB.url,
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "HF_HOME": _HOME,
    "HF_TOKEN": TOKEN,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    # Of its own: a compilation that was killed leaves a broken library in the user's cache.
    "TORCHINDUCTOR_CACHE_DIR": os.path.join(_HOME, "inductor"),
}
os.environ.update(_ENVIRONMENT)
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN_PATH"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_process():
    """Of `pytest -n`: processes that share the cores are slowed by more threads than there are."""
    import torch

    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _quiet_transformers():
    from transformers.utils import logging

    logging.disable_progress_bar()  # "Loading weights" bars heed no environment variable


@pytest.fixture(scope="session")
def hub():
    """The running Hub of the tests, with the repository `org/fsq-64k`, which the README loads."""
    import huggingface_hub

    from vistok import FSQConfig, SimpleCNNConfig, VQModelHF

    _HUB.start()
    network = SimpleCNNConfig(hidden_channels=8, num_res_blocks=1)
    config = FSQConfig(levels=[8, 8, 8, 5, 5, 5], image_size=256, network=network)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", HUB_UPLOAD_WARNING, DeprecationWarning)
        VQModelHF(config).push_to_hub("org/fsq-64k")
    yield _HUB
    huggingface_hub.close_session()  # a connection that it leaves open is a warning when the process ends
    _HUB.stop()
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def hub_env(hub) -> dict[str, str]:
    """The environment variables by which another process reaches the Hub of the tests."""
    return dict(_ENVIRONMENT)
