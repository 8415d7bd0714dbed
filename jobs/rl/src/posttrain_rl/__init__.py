"""The reinforcement learning stage: improves a model by rewards for what rollout servers generate with its weights."""
