"""The schema: tables, revision, migrations, reference page."""
