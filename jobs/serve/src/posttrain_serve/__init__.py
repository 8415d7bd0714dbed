"""The rollout server stage: vLLM started from a configuration, closed to all but its run's trainer."""
