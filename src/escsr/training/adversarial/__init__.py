"""What training against a discriminator needs: the second stage of ESC-Real."""
