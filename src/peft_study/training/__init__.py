"""Training: one run (`loop`), and many, each once (`runner`, `run_store`)."""
