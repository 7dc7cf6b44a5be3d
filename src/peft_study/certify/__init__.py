"""Is each method of a study what it says? `certificates` tells before anything is trained."""
