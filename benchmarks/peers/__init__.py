"""Other ways to keep the same tokens in the same Postgres, measured beside this program."""
