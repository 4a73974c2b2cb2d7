-- Waits until the server has counted what ended sessions wrote: no session can still have
-- something in hand, and before 15 two readings agree; or the time is over.
do $settle$
declare
  deadline constant timestamptz := clock_timestamp() + interval '{{budget_ms}} milliseconds';
  -- Since 15 a session counts in shared memory, and before it is gone from pg_stat_activity
  -- (pgstat_shutdown_hook). Before 15 a collector does, and writes a file every 0.5 s.
  is_counted_at_once constant boolean := current_setting('server_version_num')::int >= 150000;
  gap constant double precision := case when is_counted_at_once then 0.05 else 0.6 end;
  earlier text;
  reading text;
  sessions bigint;
begin
  loop
    perform pg_stat_clear_snapshot();
    select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::text
      into reading
      from pg_stat_all_tables
      where schemaname <> 'pg_toast'
        and (schemaname <> 'pg_catalog' or relname like 'pg_largeobject%');
    select count(*) into sessions from pg_stat_activity
      where {{unsettled}};
    exit when sessions = 0 and (is_counted_at_once or reading is not distinct from earlier);
    exit when clock_timestamp() >= deadline;
    earlier := reading;
    perform pg_sleep(gap);
  end loop;
end
$settle$
