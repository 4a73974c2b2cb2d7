-- Waits until the server has counted what ended sessions wrote: two readings agree and no
-- session can still have something in hand, or the time is over.
do $settle$
declare
  deadline constant timestamptz := clock_timestamp() + interval '{{budget_ms}} milliseconds';
  -- Before 15 a reader may be given a file of the statistics collector that is 0.5 s old.
  gap constant double precision :=
    case when current_setting('server_version_num')::int >= 150000 then 0.2 else 0.6 end;
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
    exit when sessions = 0 and reading is not distinct from earlier;
    exit when clock_timestamp() >= deadline;
    earlier := reading;
    perform pg_sleep(gap);
  end loop;
end
$settle$
