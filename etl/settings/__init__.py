"""The settings of the program.

table          every setting: name, default, parser, purpose; ``Settings``, ``Credential``
read           ``load_settings``: flag > environment > file > default
accounts       ``accounts.toml``: the accounts of a job
values         parsers: one function per kind of value
variable_file  the file named by ``VARIABLE_FILE``: reading it, and what to write into it
private_file   a file that no other user can read or replace
"""
