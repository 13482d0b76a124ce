"""Statements that Postgres must refuse to the roles of the warehouse."""

from __future__ import annotations

from typing import Final

WRITES: Final = {
    "INSERT": "insert into {table} select * from {table} limit 0",
    "UPDATE": "update {table} set {column} = {column}",
    "DELETE": "delete from {table}",
    "TRUNCATE": "truncate {table}",
}
DEFINITIONS: Final = [
    # New things
    "create table kaltura.mine (a int)",
    "create table public.mine (a int)",
    "create unlogged table kaltura.mine (a int)",
    "select * into kaltura.mine from upload_token",
    "create view kaltura.mine as select 1 as a",
    "create materialized view kaltura.mine as select 1 as a",
    "create function kaltura.mine() returns int language sql as 'select 1'",
    "create sequence kaltura.mine",
    "create type kaltura.mine as enum ('a')",
    "create domain kaltura.mine as int",
    "create schema mine",
    "create extension pg_trgm",
    "create publication mine for table upload_token",
    "create event trigger mine on ddl_command_start execute function pg_notify()",
    # The tables and views that are there
    "alter table upload_token_superseded add column mine int",
    "alter table upload_token_superseded drop column valid_to",
    "alter table upload_token_superseded drop constraint ck_upload_token_superseded_valid_to",
    "alter table upload_token_superseded alter column run_id set default 1",
    "alter table upload_token_superseded alter column user_id type varchar(3)",
    "alter table upload_token_superseded set unlogged",
    "alter table upload_token_superseded disable trigger all",
    "alter table upload_token_superseded enable row level security",
    "alter table upload_token_superseded owner to current_user",
    "alter table upload_token_superseded rename to gone",
    "alter table upload_token_superseded set schema public",
    "alter table upload_token_superseded replica identity full",
    "alter table sync_run alter column run_id restart with 1",
    "alter view upload_token_history set (security_invoker = false)",
    "alter view upload_token_history owner to current_user",
    "alter sequence sync_run_run_id_seq restart",
    "create or replace view upload_token_history as select * from upload_token",
    "create index mine on upload_token (user_id)",
    "create statistics mine on user_id, status from upload_token",
    "create trigger mine before update on upload_token for each row "
    "execute function suppress_redundant_updates_trigger()",
    "create rule mine as on insert to upload_token do instead nothing",
    "create policy mine on upload_token",
    "comment on table upload_token is 'mine'",
    "drop table upload_token_superseded",
    "drop table upload_token cascade",
    "drop view upload_token_history",
    "drop index ix_upload_token_listed",
    "drop schema kaltura cascade",
    "alter schema kaltura rename to mine",
    "alter schema kaltura owner to current_user",
    "reindex table upload_token",
    "cluster upload_token using pk_upload_token",
    # The numbers of the runs
    "select setval('sync_run_run_id_seq', 1)",
    "select nextval('sync_run_run_id_seq')",
    "select last_value from sync_run_run_id_seq",
    # Locks that would stop the others
    "do $$ begin lock table kaltura.upload_token_superseded in access exclusive mode; end $$",
    "do $$ begin lock table kaltura.upload_token_status in share mode; end $$",
]

SERVER: Final = [
    "create role mine",
    "create database mine",
    "create tablespace mine location '/tmp'",
    "alter role current_user superuser",
    "alter role current_user createrole",
    "alter role current_user bypassrls",
    "alter role {owner} password 'mine'",
    "alter role {owner} nologin",
    "drop role {owner}",
    "grant {owner} to current_user",
    "grant pg_write_all_data to current_user",
    "grant pg_execute_server_program to current_user",
    "set role {owner}",
    "set session authorization {owner}",
    "reassign owned by {owner} to current_user",
    "drop owned by {owner}",
    "set session_replication_role = replica",
    "alter system set fsync = off",
    "alter database {database} set search_path = public",
    "alter database {database} owner to current_user",
    "drop database {database}",
    "copy upload_token to program 'cat >/dev/null'",
    "create temp table t (a text); copy t from program 'id'",
    "copy (select 1) to '/tmp/mine'",
    "create temp table t (a text); copy t from '/etc/passwd'",
    "select pg_read_file('/etc/passwd')",
    "select pg_read_binary_file('/etc/passwd')",
    "select pg_ls_dir('.')",
    "select pg_stat_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "select lo_export(1, '/tmp/mine')",
    "load '/tmp/mine.so'",
    "create function pg_temp.mine() returns int language c as '/tmp/mine.so'",
    "create function pg_temp.mine() returns int language internal as 'int4pl'",
    "select rolpassword from pg_authid",
    "select passwd from pg_shadow",
    "select * from pg_statistic",
    "select * from pg_largeobject",
    "select pg_reload_conf()",
    "select pg_rotate_logfile()",
    "select pg_switch_wal()",
    "select pg_stat_reset()",
    "select pg_create_physical_replication_slot('mine')",
    "select pg_terminate_backend({pid})",
    "select pg_cancel_backend({pid})",
    "checkpoint",
    "select * from private.secret",
    "select count(*) from private.secret",
]

LOADER_ONLY: Final = [
    "update upload_token_superseded set user_id = 'x' where version = 1",
    "update upload_token_superseded set valid_to = valid_to",
    "insert into upload_token_superseded select * from upload_token_superseded "
    "on conflict (partner_id, token_id, version) do update set user_id = 'x'",
    "merge into upload_token_superseded using (values (1)) as v (a) on false "
    "when matched then update set user_id = 'x'",
    "merge into upload_token using (values (1)) as v (a) on true when matched then delete",
    "with gone as (delete from upload_token_superseded returning 1) select count(*) from gone",
    "select * from upload_token_superseded for update",
    "select * from upload_token_superseded for key share",
    "do $$ begin delete from kaltura.upload_token_superseded; end $$",
    "create function pg_temp.f() returns void language sql security definer "
    "as 'delete from kaltura.upload_token_superseded'; select pg_temp.f()",
    "truncate sync_run cascade",
    "truncate upload_token, upload_token_superseded",
]

READER_ONLY: Final = [
    "select * from upload_token for update",
    "select * from upload_token for share",
    "merge into upload_token using (values (1)) as v (a) on false "
    "when not matched then insert (partner_id) values (1)",
    "copy upload_token from stdin",
    "with gone as (delete from upload_token returning 1) select count(*) from gone",
    "do $$ begin update kaltura.upload_token set user_id = null; end $$",
    # What rejected rows said, by every way to it
    "select payload from rejected_row",
    "select * from rejected_row",
    "select row from rejected_row as row",
    "select count(payload) from rejected_row",
    "select 1 from rejected_row where payload = '\\x00'",
    "select 1 from rejected_row order by payload",
    "select to_jsonb(r) from rejected_row as r",
    "copy rejected_row to stdout",
    "copy (select payload from rejected_row) to stdout",
    "explain select payload from rejected_row",
    "do $$ begin perform payload from kaltura.rejected_row; end $$",
    "create temp view mine as select payload from kaltura.rejected_row; select * from mine",
    "declare mine cursor with hold for select payload from rejected_row",
]

ANALYST_ONLY: Final = [
    "select * from upload_token_staging",
    "select count(*) from upload_token_staging",
    "select exists (select from upload_token_staging)",
    "copy upload_token_staging to stdout",
    "explain select * from upload_token_staging",
    "create temp view mine as select * from kaltura.upload_token_staging; select * from mine",
    "create temp view mine with (security_invoker = false) as "
    "select * from kaltura.upload_token_staging; select * from mine",
    "do $$ begin perform 1 from kaltura.upload_token_staging; end $$",
    "select version_num from alembic_version",
    "select currtid2('upload_token_staging', '(0,1)')",
]

_LEAK: Final = (
    "create function pg_temp.leak(text) returns boolean language plpgsql cost 0.0000001 "
    "as $$ begin raise notice 'leaked %', $1; return true; end $$;;"
)
WAYS_TO_OTHER_ACCOUNTS: Final = [
    "table upload_token",
    "select * from upload_token_superseded where partner_id = 102",
    "select token_id, reason from rejected_row",
    "select run.label, page.* from sync_page as page join sync_run as run using (run_id)",
    "table unobserved_token",
    # Settings that a policy might depend on
    "set row_security = off;; table upload_token",
    "set kaltura.partner_id = '102';; set kaltura.accounts = '102';; table upload_token",
    "set session_replication_role = replica;; table upload_token",
    "reset role;; reset session authorization;; table upload_token",
    "set role none;; table upload_token",
    # What is evaluated before the policy would see every row
    *(
        _LEAK + each
        for each in (
            "select count(*) from upload_token where pg_temp.leak(file_name)",
            "select count(*) from upload_token_history where pg_temp.leak(user_id)",
            "select count(*) from upload_token_as_of(now()) where pg_temp.leak(file_name)",
            "select count(*) from sync_run join sync_page using (run_id) where pg_temp.leak(label)",
            "create operator pg_temp.<<<< (function = pg_temp.leak, rightarg = text);; "
            "select count(*) from upload_token where operator(pg_temp.<<<<) file_name",
            "select count(*) from rejected_row where pg_temp.leak(token_id)",
        )
    ),
    "select * from upload_token where cast(file_name as integer) > 0",
    "select cast(user_id as integer) from upload_token where partner_id = 102",
    "select 1 / (partner_id - 102) from upload_token",
    # Other ways to name a row
    "select * from upload_token tablesample bernoulli (100)",
    "select * from only upload_token",
    "select * from upload_token where ctid = any(array(select cast(format('(%s,%s)', page, line) "
    "as tid) from generate_series(0, 9) as page, generate_series(1, 99) as line))",
    "select (select string_agg(file_name, ',') from upload_token where partner_id = 102)",
    "with known as materialized (table upload_token) table known",
    "select to_jsonb(known) from upload_token as known",
    "select query_to_xml('table kaltura.upload_token', true, true, '')",
    "select table_to_xml('kaltura.upload_token', true, true, '')",
    "select currtid2('kaltura.upload_token', '(0,40)')",
    # Other forms of a query
    "copy upload_token to stdout",
    "copy (select * from upload_token_history) to stdout",
    "explain (analyze, verbose) select * from upload_token where file_name > ''",
    "begin;; declare mine cursor for table upload_token;; fetch all from mine",
    "prepare mine as table upload_token;; execute mine",
    "do $$ declare each record; begin for each in table kaltura.upload_token loop "
    "raise notice '%', each; end loop; end $$",
    # Objects of his own
    "create temp view mine as table kaltura.upload_token;; table mine",
    "create temp view mine with (security_invoker = false) as table kaltura.upload_token_history;; "
    "table mine",
    "create temp table mine as table kaltura.upload_token;; table mine",
    'create temp table mine (partner_id int, token_id text collate "C", '
    "foreign key (partner_id, token_id) references kaltura.upload_token);; "
    "insert into mine select 102, token_id from kaltura.upload_token",
    "create function pg_temp.mine() returns setof kaltura.upload_token language sql "
    "security definer as 'table kaltura.upload_token';; select * from pg_temp.mine()",
    # What Postgres keeps of the rows
    "select * from pg_stats where schemaname = 'kaltura'",
    "select * from pg_stats_ext",
    "select * from pg_statistic",
    "select * from pg_stat_activity",
]
"""Each of them by statements between ``;;``; for an analyst that is limited to account 101."""

WAYS_TO_LIFT_A_LIMIT: Final = [
    "alter table upload_token disable row level security",
    "alter table upload_token no force row level security",
    "drop policy kaltura_etl_limit_1 on upload_token",
    "alter policy kaltura_etl_limit_1 on upload_token using (true)",
    "alter policy kaltura_etl_limit_1 on upload_token to public",
    "alter policy kaltura_etl_limit_1 on upload_token rename to mine",
    "create policy mine on upload_token using (true)",
    "alter role current_user bypassrls",
    "delete from pg_policy",
    "update pg_class set relrowsecurity = false",
]
