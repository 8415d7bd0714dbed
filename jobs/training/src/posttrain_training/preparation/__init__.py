"""Preparation: from rows of any format to tokens with a loss mask, once for all processes, attempts and jobs."""
