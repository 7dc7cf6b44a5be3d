"""Training: one run (`loop`), and the runs of all seeds (`runner`)."""
