"""Fields of a network that make it small, where it has them."""

SMALL = {
    "hidden_channels": 32,  # of which group normalization makes 32 groups
    "channel_multipliers": [1, 1],
    "attention_levels": [1],
    "num_res_blocks": 1,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_hidden_size": 64,
    "decoder_num_layers": 1,
    "num_latent_tokens": 6,
}
