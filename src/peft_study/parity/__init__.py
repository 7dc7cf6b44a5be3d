"""Is our LoRA the LoRA of others? `certificate` says so, or names what differs."""
