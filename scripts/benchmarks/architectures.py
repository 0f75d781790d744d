"""Every network with FSQ on the same pictures for the same number of steps, small enough for a CPU: a table.

    python scripts/benchmarks/architectures.py --dataset_name ../shared/data/tiny-imagenet --threads 1
        [--rows VQGAN ViT] [--output_dir outputs/architectures] [--json rows.json]

Each run is `vistok train` in a folder of its own; a finished one is read and not repeated. Loss and PSNR
of the training are means over the first and over the last fifty steps.
"""

from methods import parse, run, settings, show

FSQ = {"model_type": "vistok_fsq", "levels": [8, 5, 5, 5]}
_CNN = {"hidden_channels": 32, "channel_multipliers": [1, 1, 2, 2], "num_res_blocks": 1}
_VIT = {"hidden_size": 192, "intermediate_size": 512, "num_layers": 4, "num_heads": 3}
_TITOK = {"hidden_size": 192, "num_layers": 4, "decoder_hidden_size": 192, "decoder_num_layers": 4}
NETWORKS = {
    "SimpleCNN, f4": {"model_type": "vistok_simple_cnn", "hidden_channels": 32},
    "StridedCNN, f8": {"model_type": "vistok_strided_cnn", "hidden_channels": 64},
    "VQGAN, f8": {"model_type": "vistok_vqgan", **_CNN, "attention_levels": [3], "z_channels": 64},
    "MAGVIT2, f8": {"model_type": "vistok_magvit2", **_CNN},
    "MaskGIT, f8": {"model_type": "vistok_maskgit", **_CNN},
    "ViT, f8": {"model_type": "vistok_vit", **_VIT},
    "ViT, linear attention, f8": {"model_type": "vistok_vit", **_VIT, "attention": "linear"},
    "TiTok, 64 tokens": {
        "model_type": "vistok_titok", **_TITOK, "num_latent_tokens": 64, "image_size": 64, "patch_size": 8
    },
}  # fmt: skip
# Transformers do not bear the learning rate of a convolutional network.
LEARNING_RATES = {"vistok_vit": 1e-3, "vistok_titok": 1e-3}
COLUMNS = {
    "network": ("name", "{}"),
    "parameters": ("parameters_in_all", "{:,}"),
    "tokens": ("tokens_per_picture", "{}"),
    "loss, first 50": ("loss_begin", "{:.4f}"),
    "last 50": ("loss_end", "{:.4f}"),
    "training PSNR, first 50": ("psnr_begin", "{:.2f}"),
    "last 50 ": ("psnr_end", "{:.2f}"),
    "PSNR": ("psnr", "{:.2f}"),
    "SSIM": ("ssim", "{:.3f}"),
    "images/s": ("images_per_second", "{:.0f}"),
    "seconds": ("seconds", "{:.0f}"),
}


def main() -> None:
    """Runs what is asked for and not finished, and prints the table."""
    arguments = parse(__doc__, "outputs/architectures", 500, list(NETWORKS))
    rows = []
    for name in arguments.rows:
        network = NETWORKS[name]
        values = settings(FSQ, network, arguments)
        values["learning_rate"] = LEARNING_RATES.get(network["model_type"], arguments.learning_rate)
        rows.append(
            run(name, values, arguments.output_dir / name.lower().replace(", ", "-").replace(" ", "-"))
        )
    show(rows, COLUMNS, arguments)


if __name__ == "__main__":
    main()
