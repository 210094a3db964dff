"""Training: the step, what a run measures and keeps, the loop."""
