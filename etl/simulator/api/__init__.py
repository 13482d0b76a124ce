"""What the service answers: sessions, calls, listing, errors, reply faults."""
