-- Counts the rows of every table, the small ones first, until the time is over. What a role
-- may not see whole (privileges, row security) is not counted, nor is one that is too large to
-- be read in what is left of the time. Beside them, where there was a cut-over, the rows whose
-- version was written since. The results are session variables, because a reading writes
-- nothing, not even a temporary table.
do $rows$
declare
  deadline constant timestamptz := clock_timestamp() + interval '{{budget_ms}} milliseconds';
  counted jsonb := '{}';
  written jsonb := '{}';
  found record;
  n bigint;
  since bigint;
begin
  for found in
    select c.oid, format('%I.%I', n.nspname, c.relname) as name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r'
        and n.nspname not in ('pg_catalog', 'information_schema')
        and n.nspname !~ '^pg_(toast|temp)'
        and has_schema_privilege(n.oid, 'usage')
        and has_table_privilege(c.oid, 'select')
        and not row_security_active(c.oid)
      order by c.relpages, c.oid
  loop
    exit when clock_timestamp() >= deadline;
    begin
      continue when pg_relation_size(found.oid)
        > extract(epoch from deadline - clock_timestamp()) * {{bytes_per_second}};
      execute format($count$select count(*), {{written}} from only %s$count$, found.name)
        into n, since;
      counted := counted || jsonb_build_object(found.oid::text, n);
      written := written || jsonb_build_object(found.oid::text, since);
    exception
      when query_canceled then exit;
      -- Locked, or dropped since: that table is not counted, the others are.
      when others then null;
    end;
  end loop;
  perform set_config('payram_updater.rows', counted::text, false);
  perform set_config('payram_updater.written', jsonb_strip_nulls(written)::text, false);
end
$rows$
