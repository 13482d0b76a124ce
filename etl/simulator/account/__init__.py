"""The simulated account: its tokens in order, its truth, and how it lives."""
