"""Evaluation of text models: metrics, baselines, reference language model, report."""
