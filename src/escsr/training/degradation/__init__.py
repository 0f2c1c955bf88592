"""Real-ESRGAN's second-order degradation: what photographs suffer on their way, drawn at random."""
