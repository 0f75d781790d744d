"""Gradio's app with what a public page needs: limits, private answers, and a cache that empties itself."""

import asyncio
import atexit
import logging
import os
import shutil
import signal
import tempfile
import threading
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal
from starlette.middleware import Middleware

from .gate import MOST_WAITING, Gate
from .style import CSS, theme
from .uploads import MAX_BYTES, MISUNDERSTOOD, refusal

logger = logging.getLogger(__name__)

MOST_SECONDS = 60  # of one request
CACHE_SECONDS = 900  # how long uploads and answers are kept
SESSIONS = 100  # pages whose last picture is remembered: some MB each
BROKEN = "Something went wrong here, and it is not your fault. Try another picture or other settings."


class SafeBlocks(gr.Blocks):
    """`gr.Blocks` for strangers.

    Files come from uploads alone; every error is a plain sentence without paths or traces; requests have
    limits in bytes, number and time; what was uploaded or made is deleted after a quarter of an hour, and at
    the end.

    Args:
        title: Of the browser's tab.
    """

    def __init__(self, title: str):
        # A folder of its own, which nothing else fills, reads or keeps.
        self.folder = tempfile.mkdtemp(prefix="vistok-demo-")
        os.environ["GRADIO_TEMP_DIR"] = self.folder
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        super().__init__(
            title=title, analytics_enabled=False, delete_cache=(-(-CACHE_SECONDS // 10), CACHE_SECONDS)
        )

    def launch(self, **options: Any) -> tuple:
        """Starts the server; see `gr.Blocks.launch` for the options, which override those chosen here."""
        self.queue(max_size=MOST_WAITING, default_concurrency_limit=2)

        safe = {
            "app_kwargs": {"middleware": [Middleware(Gate, folder=self.folder)]},
            "max_file_size": MAX_BYTES,
            "show_error": False,
            "state_session_capacity": SESSIONS,
            "ssr_mode": False,  # its Node server would stand before the gate
            "enable_monitoring": False,
            "run_history": False,
            "footer_links": ["api", "gradio", "settings"],
            "theme": theme(),
            "css": CSS,
        }
        if threading.current_thread() is threading.main_thread():
            # A host that stops the page is Ctrl-C to it: it closes, and deletes what it kept.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        return super().launch(**(safe | options))

    async def process_api(
        self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Answers one request; see `gr.Blocks.process_api`."""
        refuse_foreign_files(inputs)
        work = asyncio.ensure_future(super().process_api(block_fn, inputs, *args, **kwargs))
        # Not wait_for: it would wait for the thread of the work, which cannot be stopped.
        done, _ = await asyncio.wait({work}, timeout=MOST_SECONDS)
        if not done:
            work.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise refusal(f"This took more than {MOST_SECONDS} seconds: choose a smaller size.")
        try:
            return work.result()
        except gr.Error:
            raise
        except Exception as error:
            logger.exception("A request failed")
            raise refusal(BROKEN) from error

    async def preprocess_data(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Makes a function's arguments of a request; see `gr.Blocks.preprocess_data`."""
        try:
            return await super().preprocess_data(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:  # a request of another form than the page's own
            raise refusal(MISUNDERSTOOD) from error


def refuse_foreign_files(inputs: Any) -> None:
    """Raises `gr.Error` where a request names a file that was not uploaded: an address, data or a path.

    Gradio itself fetches addresses, in any input.
    """
    stack, folder = [inputs], get_upload_folder()
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
            path, url = value.get("path"), value.get("url")
            pasted = isinstance(url, str) and not url.startswith(("http:", "https:", "/"))
            if pasted or (path is not None and not _is_upload(path, folder)):
                raise refusal("Upload the file: this page takes no addresses, no paths and no pasted data.")
        elif isinstance(value, list | tuple):
            stack.extend(value)


def _is_upload(path: Any, folder: str) -> bool:
    if not isinstance(path, str) or "\0" in path or "://" in path:
        return False
    return os.path.isabs(path) and is_in_or_equal(os.path.realpath(path), os.path.realpath(folder))
