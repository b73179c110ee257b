"""What is right: verifiers of answers, and reward models."""
