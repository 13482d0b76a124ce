"""What each kind of role may do, and granting it."""
