"""Data: the tasks, where their rows come from, how they are prepared and scored."""
