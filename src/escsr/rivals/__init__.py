"""Networks of others, to stand beside ours; they need torch, and most need spandrel."""
