"""Pretrained encoders: what is known of them, their files, and the models built from them."""
