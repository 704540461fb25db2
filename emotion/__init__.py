"""Emotion from close-up face clips: clips, stacks, models, judging."""
