"""One question to the Hugging Face Hub before anything is read, so that what is wrong is known in seconds.

`datasets` asks six times over half a minute and then cannot tell a Hub that is out of reach from a dataset
that does not exist; here each case is one line that says what to do.
"""

from ..messages import one_line
from .sources import DatasetError

HUB_TIMEOUT = 10  # seconds until a Hub that does not answer counts as out of reach


def commit_on_hub(name: str, revision: str | None, token: str | None) -> str:
    """Return the commit that a revision of a dataset points to.

    Args:
        name: the dataset's id.
        revision: branch, tag or commit; by default the main branch.
        token: by default the one that `hf auth login` or HF_TOKEN gave.

    Raises:
        DatasetError: the Hub is out of reach or must not be asked; the dataset or revision does not exist or
            is gated.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub import errors as hub

    if constants.HF_HUB_OFFLINE:
        raise DatasetError(
            f"{name!r} is no local path, and HF_HUB_OFFLINE forbids asking the Hub for it: unset it, "
            "or give a local path"
        )
    try:
        return HfApi().dataset_info(name, revision=revision, token=token, timeout=HUB_TIMEOUT).sha
    except hub.GatedRepoError as error:
        raise gated(name) from error
    except hub.RevisionNotFoundError as error:
        raise DatasetError(
            f"dataset {name!r} has no revision {revision!r}: check its page on the Hub"
        ) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise DatasetError(
            f"{name!r} is neither a local path nor a dataset on the Hub that you may read: check the name; "
            "for a private dataset run `hf auth login` or set HF_TOKEN"
        ) from error
    except hub.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise DatasetError(f"the Hub answered {status} for dataset {name!r}: try again later") from error
    except Exception as error:  # the HTTP client's own errors: httpx in huggingface_hub 1, httpx2 in 2
        raise DatasetError(
            f"{name!r} is no local path, and {constants.ENDPOINT} is out of reach ({one_line(error)}): "
            "check the network, or give a local path"
        ) from error


def is_gated(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is the Hub's answer for a gated dataset."""
    while error is not None:
        if type(error).__name__ == "GatedRepoError" or "gated dataset" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def gated(name: str) -> DatasetError:
    """Return the error for a gated dataset."""
    return DatasetError(
        f"dataset {name!r} is gated: accept the terms on https://huggingface.co/datasets/{name}, then run "
        "`hf auth login` or set HF_TOKEN"
    )
