-- What would act when rows are inserted into these tables, and what checks them only at once, as
-- one JSON object. Names are quoted where SQL needs it.
with wanted as (
  select c.oid, format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ('{{tables}}'::oid[])
), checked as (
  select oid from wanted
  union select relid from wanted, pg_partition_ancestors(wanted.oid)
)
select json_build_object(
  'eventTriggers', (select coalesce(json_agg(evtname order by evtname), '[]')
                      from pg_event_trigger where evtenabled <> 'D'),
  'rules', (select coalesce(json_agg(w.name order by w.name), '[]')
              from pg_rewrite r join wanted w on w.oid = r.ev_class
              where r.ev_type = '3' and r.ev_enabled <> 'D'),
  'triggers', (select coalesce(json_agg(json_build_object(
                   'table', w.name, 'name', quote_ident(t.tgname),
                   'enabled', t.tgenabled) order by w.name, t.tgname), '[]')
                 from pg_trigger t join wanted w on w.oid = t.tgrelid
                 where not t.tgisinternal and t.tgenabled <> 'D'),
  'references', (select coalesce(json_agg(json_build_object(
                     'table', format('%I.%I', n.nspname, c.relname),
                     'name', quote_ident(x.conname),
                     'isDeferrable', x.condeferrable,
                     'isDeferred', x.condeferred) order by x.conname, x.oid), '[]')
                   from pg_constraint x
                     join checked on checked.oid = x.conrelid
                     join pg_class c on c.oid = x.conrelid
                     join pg_namespace n on n.oid = c.relnamespace
                   where x.contype = 'f' and x.conparentid = 0
                     and coalesce(to_jsonb(x) ->> 'conenforced', 'true') = 'true')
)::text
