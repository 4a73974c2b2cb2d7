-- What rows a database can hold: tables that hold rows themselves, with columns, keys, checks
-- and references, and where sequences are, as one JSON object.
with spaces as (
  select oid, nspname from pg_namespace
    where nspname not in ('pg_catalog', 'information_schema')
      and nspname !~ '^pg_(toast|temp)'
), tables as (
  select c.oid, c.relnamespace, format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join spaces n on n.oid = c.relnamespace
    where c.relkind = 'r'
      and not exists (select from pg_depend d where d.deptype = 'e'
                        and d.classid = 'pg_class'::regclass and d.objid = c.oid)
)
select jsonb_build_object(
  'encoding', current_setting('server_encoding'),
  'tables', (select coalesce(jsonb_agg(jsonb_build_object(
      'id', t.oid::bigint,
      'name', t.name,
      'isReadable', has_schema_privilege(t.relnamespace, 'usage')
                    and has_table_privilege(t.oid, 'select'),
      'columns', (select coalesce(jsonb_agg(jsonb_build_object(
                      'number', a.attnum,
                      'name', quote_ident(a.attname),
                      'type', format_type(a.atttypid, a.atttypmod),
                      'bareType', format_type(a.atttypid, -1),
                      'labels', (select jsonb_agg(l.enumlabel order by l.enumsortorder)
                                   from pg_enum l where l.enumtypid = a.atttypid),
                      'isRequired', a.attnotnull,
                      'hasDefault', a.atthasdef or a.attidentity <> '',
                      'isGenerated', coalesce(to_jsonb(a) ->> 'attgenerated', '') <> '',
                      'isAlwaysIdentity', a.attidentity = 'a') order by a.attnum), '[]')
                    from pg_attribute a
                    where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped),
      -- The columns that tell rows apart: the primary key, or another that is as good.
      'key', (select coalesce(jsonb_agg(k.attnum order by k.place), '[]')
                from (select i.indkey, coalesce((to_jsonb(i) ->> 'indnkeyatts')::int,
                                                i.indnatts) as columns
                        from pg_index i
                        where i.indrelid = t.oid and i.indisunique and i.indimmediate
                          and i.indisvalid and i.indpred is null and i.indexprs is null
                          and not exists (
                            select from unnest(i.indkey::int2[]) k (attnum)
                              join pg_attribute a
                                on a.attrelid = t.oid and a.attnum = k.attnum
                              where not a.attnotnull)
                        order by i.indisprimary desc, i.indexrelid limit 1) i,
                  unnest(i.indkey::int2[]) with ordinality k (attnum, place)
                where k.place <= i.columns),
      'checks', (select coalesce(jsonb_agg(jsonb_build_object(
                     'name', x.conname,
                     'columns', coalesce(to_jsonb(x.conkey), '[]'),
                     'holds', pg_get_expr(x.conbin, x.conrelid)) order by x.conname), '[]')
                   from pg_constraint x where x.conrelid = t.oid and x.contype = 'c'),
      'references', (select coalesce(jsonb_agg(distinct x.confrelid::bigint), '[]')
                       from pg_constraint x where x.conrelid = t.oid and x.contype = 'f')
    ) order by t.name), '[]') from tables t),
  'sequences', (select coalesce(jsonb_object_agg(format('%I.%I', s.schemaname, s.sequencename),
                                                 s.last_value), '{}')
                  from pg_sequences s where s.last_value is not null)
)::text
