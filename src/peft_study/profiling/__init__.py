"""What a method costs: time, memory, latency and energy, measured by itself."""
