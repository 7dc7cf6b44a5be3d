"""Many runs, each trained once: jobs, where they are trained, and the store of finished ones."""
