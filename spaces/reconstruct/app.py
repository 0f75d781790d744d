"""The Space: vistok's page, for the tokenizers that the variable VISTOK_MODELS names."""

import os

try:
    import spaces  # before torch, where the Space has a ZeroGPU
except ImportError:
    spaces = None
from vistok.demo.page import build

# A checkout of vistok has a folder of that name, which Python takes for an empty package.
demo = build(os.environ.get("VISTOK_MODELS", "").split(), gpu=getattr(spaces, "GPU", None))

if __name__ == "__main__":
    demo.launch()
