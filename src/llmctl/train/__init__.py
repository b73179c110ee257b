"""The training loop and what it needs: plan, schedule, optimizers, losses, metrics."""
