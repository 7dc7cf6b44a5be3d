"""From predictions to findings. Reads files, never trains."""
