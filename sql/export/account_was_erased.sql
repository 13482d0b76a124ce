-- Whether everything of an account was deleted at some time: a record of that remains.
select exists (
    select 1
    from sync_run as run
    where
        run.partner_id = %(partner_id)s
        and run.error_kind = 'account_erased'
) as erased
