"""One subject's erasure, within a transaction: the affected rows, and their new values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from etl.errors import UsageError
from etl.resources import program_version
from etl.tokens.digest import DIGEST_COLUMNS
from etl.tokens.pseudonyms import Pseudonyms, owners_of
from etl.tokens.token import TEXT_BYTES_MAX, TOKEN_ID_BYTES_MAX
from etl.warehouse.engine import require_row_count
from etl.warehouse.schema.database import Database

VERSION_TABLES: Final = ("upload_token", "upload_token_superseded", "upload_token_staging")
_KEYS: Final = {
    "upload_token": ("token_id",),
    "upload_token_superseded": ("token_id", "version"),
    # Staging has no key: rows of an account with the same values are replaced together.
    "upload_token_staging": ("walk_id", "token_id", "user_id", "file_name", "extra"),
}
"""What identifies a row within its account.  Never ``ctid``: it is unique in one heap only, and a
partitioned or distributed table has many."""
TOKENS_AT_ONCE: Final = 1_000
ROWS_AT_ONCE: Final = 100
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Subject:
    """A user or a token of the account, by its id as Kaltura sends it."""

    kind: str
    subject_id: str = field(repr=False)

    def __post_init__(self) -> None:
        name, text = f"--{self.kind}-id", self.subject_id
        if not text:
            raise UsageError(f"{name} must not be empty.")
        if "\0" in text:
            raise UsageError(f"{name} must not contain a NUL character: Postgres stores none.")
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            raise UsageError(f"{name} is not valid UTF-8.") from None
        limit = TOKEN_ID_BYTES_MAX if self.kind == "token" else TEXT_BYTES_MAX
        if length > limit:
            raise UsageError(f"{name} must not be longer than {limit} bytes.")


class _RejectedKey(NamedTuple):
    """What identifies a rejected row (``uq_rejected_row_payload``)."""

    run_id: int
    reason: str
    sha256: bytes
    """The hash of its payload."""


@dataclass(slots=True)
class Replaced:
    """The numbers of rows of a table in which values were replaced, and of values."""

    rows: int = 0
    values: int = 0


@dataclass(slots=True)
class Erased:
    """What the erasure of one subject replaced, or would replace."""

    kind: str
    subject_hash: str | None
    """The first digits of the keyed hash under which it is listed; None before there is a key."""
    tokens: int
    """Affected tokens."""
    similar_ids: int
    """Other user ids that differ only in case: they are not erased."""
    tables: dict[str, Replaced]


class Eraser:
    """The erasure of one subject within its transaction."""

    def __init__(
        self,
        connection: sa.Connection,
        database: Database,
        partner_id: int,
        pseudonyms: Pseudonyms,
        subject: Subject,
        *,
        apply: bool,
    ) -> None:
        self._connection = connection
        self._tables = database.tables
        tables = database.tables.metadata.tables
        self._by_name = {name: tables[f"{database.schema}.{name}"] for name in VERSION_TABLES}
        self._partner_id = partner_id
        self._pseudonyms = pseudonyms
        self._subject = subject
        self._apply = apply
        self._is_user = subject.kind == "user"
        self._user_ids = (
            {subject.subject_id, pseudonyms.of_user(subject.subject_id)} if self._is_user else set()
        )

    def run(self) -> Erased:
        subject, pseudonyms = self._subject, self._pseudonyms
        owned: set[_RejectedKey] = set()
        tokens = {subject.subject_id}
        if self._is_user:
            owned, named = self._owned_rejected()
            tokens = self._tokens_owned() | named
        similar = self._similar_ids() if self._is_user else 0
        rejected = self._replace_payloads(owned, tokens)
        tables = {name: Replaced() for name in VERSION_TABLES}
        in_order = sorted(tokens)
        for begin in range(0, len(in_order), TOKENS_AT_ONCE):
            for name, replaced in tables.items():
                some = in_order[begin : begin + TOKENS_AT_ONCE]
                self._replace_values(self._by_name[name], some, replaced)
        subject_hash = pseudonyms.subject_hash(subject.kind, subject.subject_id)
        if self._apply:
            self._connection.execute(
                sa.insert(self._tables.erasure).values(
                    partner_id=self._partner_id,
                    kind=subject.kind,
                    subject_hash=subject_hash,
                    key_check=pseudonyms.key_check(),
                    versions=tables["upload_token"].rows + tables["upload_token_superseded"].rows,
                    staged=tables["upload_token_staging"].rows,
                    rejected=rejected.rows,
                    program_version=program_version(),
                )
            )
        return Erased(
            kind=subject.kind,
            subject_hash=subject_hash.hex()[:16],
            tokens=len(tokens),
            similar_ids=similar,
            tables=tables | {"rejected_row": rejected},
        )

    def _tokens_owned(self) -> set[str]:
        parts = [
            sa.select(table.c.token_id).where(
                table.c.partner_id == self._partner_id, table.c.user_id.in_(self._user_ids)
            )
            for table in self._by_name.values()
        ]
        return set(self._connection.scalars(sa.union(*parts)))

    def _similar_ids(self) -> int:
        token = self._tables.upload_token
        same = sa.func.lower(token.c.user_id) == sa.func.lower(
            sa.literal(self._subject.subject_id, sa.Text)
        )
        return (
            self._connection.scalar(
                sa.select(sa.func.count(token.c.user_id.distinct())).where(
                    token.c.partner_id == self._partner_id,
                    same,
                    token.c.user_id.not_in(self._user_ids),
                )
            )
            or 0
        )

    def _replace_values(self, table: sa.Table, tokens: Sequence[str], replaced: Replaced) -> None:
        """Replace the values of these tokens' rows, which are identified by their keys."""
        names = _KEYS[table.name]
        rows = sa.select(
            *[_as_sent(table.c[name]).label(name) for name in _columns_to_read(names)]
        ).where(
            table.c.partner_id == self._partner_id,
            table.c.token_id == sa.any_(sa.cast(list(tokens), sa.ARRAY(sa.Text(collation="C")))),
        )
        if self._apply:
            rows = rows.with_for_update()
        meant = 0
        changed: dict[tuple[Any, ...], tuple[str | None, ...]] = {}
        for row in self._connection.execute(rows):
            old = (row.user_id, row.file_name, row.extra)
            new = self._replacement(row)
            if new != old:
                meant += 1
                replaced.values += sum(one != other for one, other in zip(old, new, strict=True))
                changed[tuple(getattr(row, name) for name in names)] = new
        replaced.rows += meant
        if not changed or not self._apply:
            return
        new_values = _recordset(
            [(*key, *values) for key, values in changed.items()],
            *[f"old_{name}" for name in names],
            *("user_id", "file_name", "extra"),
        )
        done = self._connection.execute(
            sa.update(table)
            .where(
                table.c.partner_id == self._partner_id,
                *[_is_same(table.c[name], new_values.c[f"old_{name}"]) for name in names],
            )
            .values(
                user_id=new_values.c.user_id,
                file_name=new_values.c.file_name,
                extra=sa.cast(new_values.c.extra, JSONB),
                # A guess of a name could be confirmed by them.  The next full run fills them in.
                **{name: None for name in DIGEST_COLUMNS if name in table.c},
            )
        )
        require_row_count(table.name, changed=done.rowcount, meant=meant)

    def _replacement(self, row: Any) -> tuple[str | None, str | None, str | None]:
        """The row's user, file name and extra, with pseudonyms where required."""
        pseudonyms = self._pseudonyms
        user_id, file_name, extra = row.user_id, row.file_name, row.extra
        if user_id is not None and (not self._is_user or user_id in self._user_ids):
            user_id = pseudonyms.of_user(user_id)
        if file_name is not None:
            file_name = pseudonyms.of_file_name(row.token_id, file_name)
        if extra is not None:
            extra = pseudonyms.of_extra(row.token_id, extra.encode()).decode()
        return user_id, file_name, extra

    def _owned_rejected(self) -> tuple[set[_RejectedKey], set[str]]:
        """The user's rejected rows: their keys, and the tokens that they identify."""
        keys, tokens = set(), set()
        for key, token_id, payload in self._rejected_rows():
            if not self._user_ids.isdisjoint(owners_of(payload)):
                keys.add(key)
                if token_id is not None:
                    tokens.add(token_id)
        return keys, tokens

    def _replace_payloads(self, owned: set[_RejectedKey], tokens: set[str]) -> Replaced:
        """Replace the payloads of rejected rows with these keys, and of these tokens."""
        replaced, changed = Replaced(), []
        for key, token_id, payload in self._rejected_rows():
            if key not in owned and token_id not in tokens:
                continue
            new = self._pseudonyms.of_payload(payload)
            if new != payload:
                replaced.rows += 1
                replaced.values += 1
                changed.append((str(key.run_id), key.reason, key.sha256.hex(), new.decode()))
        if changed and self._apply:
            rejected = self._tables.rejected_row
            new_values = _recordset(changed, "run_id", "reason", "sha256", "payload")
            done = self._connection.execute(
                sa.update(rejected)
                .where(
                    rejected.c.run_id == sa.cast(new_values.c.run_id, sa.BigInteger),
                    rejected.c.reason == new_values.c.reason,
                    sa.func.sha256(rejected.c.payload)
                    == sa.func.decode(new_values.c.sha256, "hex"),
                )
                .values(payload=sa.func.convert_to(new_values.c.payload, "UTF8"))
            )
            require_row_count(rejected.name, changed=done.rowcount, meant=len(changed))
        return replaced

    def _rejected_rows(self) -> Iterator[tuple[_RejectedKey, str | None, bytes]]:
        """All of the account with their keys and tokens, a few at a time: a payload may be large.

        A run belongs to one account, so its run_id identifies the account too.
        """
        rejected, sync_run = self._tables.rejected_row, self._tables.sync_run
        rows = (
            sa.select(rejected.c.run_id, rejected.c.reason, rejected.c.token_id, rejected.c.payload)
            .join(sync_run, sync_run.c.run_id == rejected.c.run_id)
            .where(sync_run.c.partner_id == self._partner_id)
        )
        if self._apply:
            rows = rows.with_for_update(of=rejected)
        for row in self._connection.execute(rows, execution_options={"yield_per": ROWS_AT_ONCE}):
            payload = bytes(row.payload)
            key = _RejectedKey(row.run_id, row.reason, hashlib.sha256(payload).digest())
            yield key, row.token_id, payload


def listed_subjects(
    connection: sa.Connection, database: Database, partner_id: int, pseudonyms: Pseudonyms
) -> list[Subject]:
    """Erased subjects whose ids are stored nevertheless, found by hashing every id."""
    tables, erasure = database.tables, database.tables.erasure
    listed = {
        (kind, bytes(subject_hash))
        for kind, subject_hash in connection.execute(
            sa.select(erasure.c.kind, erasure.c.subject_hash).where(
                erasure.c.partner_id == partner_id
            )
        )
    }
    found: dict[Subject, None] = {}
    for kind, column in (("user", "user_id"), ("token", "token_id")):
        if not any(each == kind for each, _ in listed):
            continue
        ids = sa.union(
            *[
                sa.select(table.c[column]).where(
                    table.c.partner_id == partner_id, table.c[column].is_not(None)
                )
                for table in (
                    tables.upload_token,
                    tables.upload_token_superseded,
                    tables.upload_token_staging,
                )
            ]
        )
        for each in connection.execute(ids, execution_options={"yield_per": 10_000}).scalars():
            if (kind, pseudonyms.subject_hash(kind, each)) in listed:
                found[Subject(kind, each)] = None
    payloads = sa.select(tables.rejected_row.c.payload).join(
        tables.sync_run, tables.sync_run.c.run_id == tables.rejected_row.c.run_id
    )
    for payload in connection.execute(
        payloads.where(tables.sync_run.c.partner_id == partner_id),
        execution_options={"yield_per": ROWS_AT_ONCE},
    ).scalars():
        for each in owners_of(bytes(payload)):
            if ("user", pseudonyms.subject_hash("user", each)) in listed:
                found[Subject("user", each)] = None
    return list(found)


def _columns_to_read(key: tuple[str, ...]) -> list[str]:
    """The columns of the key, and the replaceable ones."""
    return list(dict.fromkeys((*key, "token_id", "user_id", "file_name", "extra")))


def _as_sent(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The column as text where JSON would not preserve it."""
    return sa.cast(column, sa.Text) if isinstance(column.type, (JSONB, sa.Integer)) else column


def _is_same(column: sa.ColumnElement[Any], old: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a column still has the old value, which was sent as text."""
    if isinstance(column.type, JSONB):
        # As text: 1.0 and 1.00 are equal, but not identical.
        return sa.cast(column, sa.Text).is_not_distinct_from(old)
    sent = sa.cast(old, column.type)
    return column.is_not_distinct_from(sent) if column.nullable else column == sent


def _recordset(rows: Sequence[Sequence[str | None]], *names: str) -> sa.FromClause:
    """Rows of texts as a relation, sent as one parameter."""
    text = _encode([dict(zip(names, row, strict=True)) for row in rows]).decode()
    return (
        sa.func.json_to_recordset(sa.cast(sa.literal(text, sa.Text), sa.JSON))
        .table_valued(*[sa.column(name, sa.Text) for name in names])
        .render_derived(with_types=True)
    )
