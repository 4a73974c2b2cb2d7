-- The schema, the counters, the rows that count_rows.sql counted and the sequences that
-- sequences.sql read, as one JSON object.
with spaces as (
  select oid, nspname from pg_namespace
    where nspname not in ('pg_catalog', 'information_schema')
      and nspname !~ '^pg_(toast|temp)'
), members as (
  select classid, objid from pg_depend where deptype = 'e'
), relations as (
  select c.*, format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join spaces n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'f', 'v', 'm', 'c', 'S')
      and not exists (select from members e
                        where e.classid = 'pg_class'::regclass and e.objid = c.oid)
), definitions (name, definition) as (
  select 'schema ' || quote_ident(nspname), '' from spaces
  union all
  select 'extension ' || quote_ident(extname), extversion from pg_extension
  union all
  select
    case c.relkind
      when 'v' then 'view ' when 'm' then 'materialized view ' when 'S' then 'sequence '
      when 'f' then 'foreign table ' when 'c' then 'type ' else 'table ' end || c.name,
    jsonb_build_object(
      'kind', c.relkind,
      'owner', pg_get_userbyid(c.relowner),
      'acl', c.relacl::text,
      'persistence', c.relpersistence,
      'options', c.reloptions,
      'rowSecurity', jsonb_build_array(c.relrowsecurity, c.relforcerowsecurity),
      'bound', pg_get_expr(c.relpartbound, c.oid),
      'key', case when c.relkind = 'p' then pg_get_partkeydef(c.oid) end,
      'parents', (select jsonb_agg(i.inhparent::regclass::text order by i.inhseqno)
                    from pg_inherits i where i.inhrelid = c.oid),
      'columns', (select jsonb_agg(jsonb_build_array(
                      a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                      (select k.collname from pg_collation k where k.oid = a.attcollation),
                      a.attidentity,
                      to_jsonb(a) ->> 'attgenerated', a.attacl::text,
                      pg_get_expr(d.adbin, d.adrelid)) order by a.attnum)
                    from pg_attribute a
                    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                      and c.relkind <> 'S'),
      'constraints', (select jsonb_agg(jsonb_build_array(
                          x.conname, pg_get_constraintdef(x.oid), x.convalidated)
                          order by x.conname)
                        from pg_constraint x where x.conrelid = c.oid),
      'indexes', (select jsonb_agg(jsonb_build_array(
                      pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready)
                      order by pg_get_indexdef(i.indexrelid))
                    from pg_index i where i.indrelid = c.oid),
      'triggers', (select jsonb_agg(jsonb_build_array(pg_get_triggerdef(t.oid), t.tgenabled)
                      order by t.tgname)
                     from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal),
      'rules', (select jsonb_agg(jsonb_build_array(pg_get_ruledef(r.oid), r.ev_enabled)
                      order by r.rulename)
                  from pg_rewrite r where r.ev_class = c.oid),
      'policies', (select jsonb_agg(jsonb_build_array(
                       p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[]::text,
                       pg_get_expr(p.polqual, p.polrelid),
                       pg_get_expr(p.polwithcheck, p.polrelid)) order by p.polname)
                     from pg_policy p where p.polrelid = c.oid),
      'sequence', (select to_jsonb(s) - 'seqrelid' from pg_sequence s where s.seqrelid = c.oid)
    )::text
    from relations c
  union all
  select
    'function ' || format('%I.%I(%s)', n.nspname, p.proname,
                          pg_get_function_identity_arguments(p.oid)),
    (to_jsonb(p) - 'oid' - 'pronamespace')::text
    from pg_proc p join spaces n on n.oid = p.pronamespace
    where not exists (select from members e
                        where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
  union all
  select
    'type ' || format('%I.%I', n.nspname, t.typname),
    jsonb_build_object(
      'kind', t.typtype,
      'labels', (select jsonb_agg(l.enumlabel order by l.enumsortorder)
                   from pg_enum l where l.enumtypid = t.oid),
      'base', format_type(t.typbasetype, t.typtypmod),
      'notNull', t.typnotnull,
      'default', t.typdefault,
      'constraints', (select jsonb_agg(jsonb_build_array(
                          x.conname, pg_get_constraintdef(x.oid)) order by x.conname)
                        from pg_constraint x where x.contypid = t.oid),
      'range', (select format_type(r.rngsubtype, null) from pg_range r where r.rngtypid = t.oid)
    )::text
    from pg_type t join spaces n on n.oid = t.typnamespace
    where t.typtype in ('e', 'd', 'r')
      and not exists (select from members e
                        where e.classid = 'pg_type'::regclass and e.objid = t.oid)
), cluster (name, definition) as (
  -- What belongs to no single database. Of a role's password a role like the application's sees
  -- nothing.
  select 'role ' || quote_ident(r.rolname), (to_jsonb(r) - 'oid' - 'rolpassword')::text
    from pg_roles r where r.rolname !~ '^pg_'
  union all
  select 'membership of ' || quote_ident(pg_get_userbyid(m.member)) || ' in '
      || quote_ident(pg_get_userbyid(m.roleid)),
    jsonb_agg(m.admin_option order by m.grantor)::text
    from pg_auth_members m
    where pg_get_userbyid(m.member) !~ '^pg_'
    group by m.member, m.roleid
  union all
  select 'settings of ' || coalesce('database ' || quote_ident(d.datname), 'every database')
      || coalesce(' for ' || quote_ident(pg_get_userbyid(nullif(s.setrole, 0))), ''),
    s.setconfig::text
    from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase
  union all
  select 'database ' || quote_ident(d.datname),
    jsonb_build_object('id', d.oid::bigint, 'owner', pg_get_userbyid(d.datdba),
      'connections', d.datconnlimit, 'allowed', d.datallowconn, 'acl', d.datacl::text)::text
    from pg_database d where d.datname !~ '{{scratch}}'
), tables as (
  select c.oid, format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join spaces n on n.oid = c.relnamespace
    where c.relkind = 'r'
  union all
  -- Large objects are the application's rows, though they lie in a table of the system.
  select c.oid, format('pg_catalog.%I', c.relname)
    from pg_class c
    where c.oid in ('pg_catalog.pg_largeobject'::regclass,
                    'pg_catalog.pg_largeobject_metadata'::regclass)
)
select jsonb_build_object(
  'counting', current_setting('track_counts'),
  -- The second part moves when the server has discarded its counters after a crash.
  'since', format('database %s, server %s',
    coalesce((select extract(epoch from stats_reset)::text from pg_stat_database
                where datname = current_database()), 'never'),
    coalesce((select extract(epoch from stats_reset)::text from pg_stat_bgwriter), 'never')),
  -- One past the last transaction that has ended, epoch included; asking for it takes none.
  'nextTransaction', txid_snapshot_xmax(txid_current_snapshot()),
  'sessions', (select count(*) from pg_stat_activity where {{unsettled}}),
  'tables', (select coalesce(jsonb_agg(jsonb_build_object(
                 'name', t.name,
                 'id', t.oid::bigint,
                 'file', pg_relation_filenode(t.oid)::bigint,
                 'changes', coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0),
                 'kinds', jsonb_build_object('inserted', coalesce(s.n_tup_ins, 0),
                                             'updated', coalesce(s.n_tup_upd, 0),
                                             'deleted', coalesce(s.n_tup_del, 0)))), '[]')
               from tables t left join pg_stat_all_tables s on s.relid = t.oid),
  'rows', current_setting('payram_updater.rows')::jsonb,
  'written', current_setting('payram_updater.written')::jsonb,
  'sequences', current_setting('payram_updater.sequences')::jsonb,
  'cluster', (select coalesce(jsonb_agg(jsonb_build_array(c.name, c.definition)), '[]')
                from cluster c),
  -- What was written in the others, catalogs included: nobody looks into them.
  'databases', (select coalesce(jsonb_agg(jsonb_build_object(
                    'name', s.datname,
                    'id', s.datid::bigint,
                    'kinds', jsonb_build_object('inserted', coalesce(s.tup_inserted, 0),
                                                'updated', coalesce(s.tup_updated, 0),
                                                'deleted', coalesce(s.tup_deleted, 0)))), '[]')
                  from pg_stat_database s join pg_database d on d.oid = s.datid
                  where s.datname <> current_database() and d.datallowconn
                    and not d.datistemplate
                    -- Those that a backup is proved in are this program's own.
                    and s.datname !~ '{{scratch}}'),
  'objects', (select coalesce(jsonb_agg(jsonb_build_array(d.name, d.definition)), '[]')
                from definitions d)
)::text
