-- Where every sequence stands, as a session variable. What the role may not read itself the
-- server tells as far as it was handed out; a sequence that neither tells has no value.
do $sequences$
declare
  found record;
  held jsonb := '[]';
  last bigint;
  called boolean;
begin
  for found in
    select c.oid, format('%I.%I', n.nspname, c.relname) as name,
        s.seqstart, s.seqincrement, s.seqcycle
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_sequence s on s.seqrelid = c.oid
      where c.relkind = 'S'
        and n.nspname not in ('pg_catalog', 'information_schema')
        and n.nspname !~ '^pg_(toast|temp)'
      order by 2
  loop
    last := null;
    called := false;
    begin
      execute format('select last_value, is_called from %s', found.name) into last, called;
    exception when others then
      begin
        if has_sequence_privilege(found.oid, 'usage') then
          last := pg_sequence_last_value(found.oid);
          called := last is not null;
          last := coalesce(last, found.seqstart);
        end if;
      exception when others then null;
      end;
    end;
    held := held || jsonb_build_object('name', found.name, 'id', found.oid::bigint,
      'last', last, 'isCalled', called, 'increment', found.seqincrement,
      'cycles', found.seqcycle);
  end loop;
  perform set_config('payram_updater.sequences', held::text, false);
end
$sequences$
