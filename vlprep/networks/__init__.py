"""Networks that more than one part uses: clip encoders extract with them, pretraining trains them."""
