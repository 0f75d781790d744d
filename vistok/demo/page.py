"""The page that shows tokenizers: what `vistok demo` starts and what the Space runs."""

from collections.abc import Callable, Sequence

import gradio as gr

from .bring_back import BringBack
from .compare import Compare
from .context import Context
from .endpoints import GUIDE, Endpoints
from .gate import MOST_WAITING
from .safe_blocks import SafeBlocks
from .see import See
from .tokenizers import default_tokenizer_folder, load_tokenizers
from .understand import Understand
from .variants import Variants

TITLE = "vistok: see a tokenizer work"
HEAD = f"""<div class="head"><h1>{TITLE}</h1>
<p>A visual tokenizer turns a picture into a small grid of whole numbers, its <b>tokens</b>, and turns them
back into a picture. Generative models read and write such tokens. Drop a picture and see what survives.</p>
</div>"""


def build(models: Sequence[str] = (), gpu: Callable[[Callable], Callable] | None = None) -> SafeBlocks:
    """Builds the page.

    Args:
        models: Folders or Hub ids of tokenizers. Without any, it shows the small tokenizer that
            `make quickstart` makes, which is made first where it is missing.
        gpu: What lends a function a GPU while it runs, `spaces.GPU` on ZeroGPU.

    Returns:
        The app; its `launch()` starts the server.

    Raises:
        ValueError: A folder or Hub id is no tokenizer's, or is named twice.
        OSError: A folder or Hub id does not hold a tokenizer.
    """
    context = Context(
        load_tokenizers(models or [default_tokenizer_folder()]), gpu or (lambda function: function)
    )
    parts = See(context), Understand(context), Variants(context), Compare(context), BringBack(context)
    see, understand, variants, compare, bring_back = parts
    with SafeBlocks(TITLE) as page:
        gr.HTML(HEAD)
        with gr.Row():
            with gr.Column(scale=1, min_width=300, elem_classes="inputs"):
                see.inputs()
            with gr.Column(scale=2, min_width=320), gr.Tabs() as tabs:
                with gr.Tab("See", id="see"):
                    see.panels()
                with gr.Tab("Understand", id="understand"):
                    understand.draw()
                    variants.draw()
                with gr.Tab("Compare", id="compare"):
                    compare.draw()
                with gr.Tab("Take away", id="away"):
                    see.take_away()
                    bring_back.draw()
                with gr.Tab("API", id="api"):
                    guide = gr.Markdown(elem_id="guide")
        shown = see.events(page)
        understand.events(shown, tabs)
        variants.events(shown)
        compare.events(shown)
        bring_back.events(shown)
        Endpoints(context).draw()
        names = ", ".join(f"`{name}`" for name in context.tokenizers)

        def write_guide(request: gr.Request) -> str:
            address = str(request.request.base_url)
            return GUIDE.format(address=address, names=names, waiting=MOST_WAITING)

        page.load(write_guide, outputs=guide, api_visibility="private")
    return page
