"""Speed, memory and quality beside plain PyTorch and other frameworks, measured here and now."""
