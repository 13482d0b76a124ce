"""One subject's erasure, within a transaction: which rows are concerned, and their new values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from etl.errors import UsageError
from etl.records_token import TEXT_BYTES_MAX, TOKEN_ID_BYTES_MAX
from etl.suppression import Pseudonyms, owners_of
from etl.version import program_version
from etl.warehouse.runs import Database

VERSION_TABLES: Final = ("upload_token", "upload_token_superseded", "upload_token_staging")
TOKENS_AT_ONCE: Final = 1_000
ROWS_AT_ONCE: Final = 100
_encode = msgspec.json.Encoder().encode


class _RowPlace(sa.types.UserDefinedType[str]):
    """``ctid``: where a row lies, which does not change while this transaction has it locked."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "tid"


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
            raise UsageError(f"{name} must not hold a NUL character: Postgres stores none.")
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            raise UsageError(f"{name} is not valid UTF-8.") from None
        limit = TOKEN_ID_BYTES_MAX if self.kind == "token" else TEXT_BYTES_MAX
        if length > limit:
            raise UsageError(f"{name} must not be longer than {limit} bytes.")


@dataclass(slots=True)
class Replaced:
    """Rows of one table in which values were replaced, and how many values."""

    rows: int = 0
    values: int = 0


@dataclass(slots=True)
class Erased:
    """What the erasure of one subject replaced, or would replace."""

    kind: str
    subject_hash: str | None
    """The beginning of the keyed hash under which it is listed; None before there is a key."""
    tokens: int
    """Tokens concerned."""
    similar_ids: int
    """Other user ids that differ in upper and lower case only: they are not erased."""
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
        self._by_name = {
            name: _with_place(tables[f"{database.schema}.{name}"]) for name in VERSION_TABLES
        }
        self._rejected = _with_place(database.tables.rejected_row)
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
        places: list[str] = []
        tokens = {subject.subject_id}
        if self._is_user:
            places, named = self._owned_rejected()
            tokens = self._tokens_owned() | named
        similar = self._similar_ids() if self._is_user else 0
        rejected = self._replace_payloads(places, tokens)
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

    def _replace_values(
        self, table: sa.TableClause, tokens: Sequence[str], replaced: Replaced
    ) -> None:
        rows = sa.select(
            sa.cast(table.c.ctid, sa.Text).label("place"),
            table.c.token_id,
            table.c.user_id,
            table.c.file_name,
            sa.cast(table.c.extra, sa.Text).label("extra"),
        ).where(
            table.c.partner_id == self._partner_id,
            table.c.token_id == sa.any_(sa.cast(list(tokens), sa.ARRAY(sa.Text(collation="C")))),
        )
        if self._apply:
            rows = rows.with_for_update()
        changed = list(self._changed(self._connection.execute(rows).all(), replaced))
        if not changed or not self._apply:
            return
        new = _recordset(changed, "place", "user_id", "file_name", "extra")
        self._connection.execute(
            sa.update(table)
            .where(table.c.ctid == sa.cast(new.c.place, _RowPlace()))
            .values(
                user_id=new.c.user_id,
                file_name=new.c.file_name,
                extra=sa.cast(new.c.extra, JSONB),
            )
        )

    def _changed(
        self, rows: Sequence[Any], replaced: Replaced
    ) -> Iterator[tuple[str, str | None, str | None, str | None]]:
        """The rows in which something must be replaced, with their new values."""
        pseudonyms = self._pseudonyms
        for row in rows:
            user_id, file_name, extra = row.user_id, row.file_name, row.extra
            if user_id is not None and (not self._is_user or user_id in self._user_ids):
                user_id = pseudonyms.of_user(user_id)
            if file_name is not None:
                file_name = pseudonyms.of_file_name(row.token_id, file_name)
            if extra is not None:
                extra = pseudonyms.of_extra(row.token_id, extra.encode()).decode()
            values = (user_id != row.user_id) + (file_name != row.file_name) + (extra != row.extra)
            if values:
                replaced.rows += 1
                replaced.values += values
                yield row.place, user_id, file_name, extra

    def _owned_rejected(self) -> tuple[list[str], set[str]]:
        """The user's rejected rows: their places, and the tokens that they name."""
        places, tokens = [], set()
        for row in self._rejected_rows():
            if not self._user_ids.isdisjoint(owners_of(bytes(row.payload))):
                places.append(row.place)
                if row.token_id is not None:
                    tokens.add(row.token_id)
        return places, tokens

    def _replace_payloads(self, places: Sequence[str], tokens: set[str]) -> Replaced:
        """Replace what was rejected in these places, and of these tokens."""
        owned, replaced, changed = set(places), Replaced(), []
        for row in self._rejected_rows():
            if row.place not in owned and row.token_id not in tokens:
                continue
            old = bytes(row.payload)
            new = self._pseudonyms.of_payload(old)
            if new != old:
                replaced.rows += 1
                replaced.values += 1
                changed.append((row.place, new.decode()))
        if changed and self._apply:
            rejected = self._rejected
            new_values = _recordset(changed, "place", "payload")
            self._connection.execute(
                sa.update(rejected)
                .where(rejected.c.ctid == sa.cast(new_values.c.place, _RowPlace()))
                .values(payload=sa.func.convert_to(new_values.c.payload, "UTF8"))
            )
        return replaced

    def _rejected_rows(self) -> sa.CursorResult[Any]:
        """All of the account, a few at a time: a payload may be large."""
        rejected, sync_run = self._rejected, self._tables.sync_run
        rows = (
            sa.select(
                sa.cast(rejected.c.ctid, sa.Text).label("place"),
                rejected.c.token_id,
                rejected.c.payload,
            )
            .join(sync_run, sync_run.c.run_id == rejected.c.run_id)
            .where(sync_run.c.partner_id == self._partner_id)
        )
        if self._apply:
            rows = rows.with_for_update(of=rejected)
        return self._connection.execute(rows, execution_options={"yield_per": ROWS_AT_ONCE})


def listed_subjects(
    connection: sa.Connection, database: Database, partner_id: int, pseudonyms: Pseudonyms
) -> list[Subject]:
    """Those on the list of the erased whose ids are stored nevertheless, by trying every id."""
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


def _with_place(table: sa.Table) -> sa.TableClause:
    """The table with its column ``ctid``."""
    columns: list[sa.ColumnClause[Any]] = [sa.column(each.name, each.type) for each in table.c]
    return sa.table(table.name, sa.column("ctid", _RowPlace()), *columns, schema=table.schema)


def _recordset(rows: Sequence[Sequence[str | None]], *names: str) -> sa.FromClause:
    """Rows of texts as a relation, sent as one parameter."""
    text = _encode([dict(zip(names, row, strict=True)) for row in rows]).decode()
    return (
        sa.func.json_to_recordset(sa.cast(sa.literal(text, sa.Text), sa.JSON))
        .table_valued(*[sa.column(name, sa.Text) for name in names])
        .render_derived(with_types=True)
    )
