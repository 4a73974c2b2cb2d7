-- Sets sequences, each for itself; what was refused is a session variable. `setval` is never
-- rolled back.
do $move$
declare
  one record;
  refused jsonb := '{}';
begin
  for one in
    select * from jsonb_to_recordset('{{moves}}') as m (id bigint, "to" bigint, "isCalled" boolean)
  loop
    begin
      perform setval(one.id::oid::regclass, one."to", one."isCalled");
    exception when others then
      refused := refused || jsonb_build_object(one.id::text, sqlerrm);
    end;
  end loop;
  perform set_config('payram_updater.refused', refused::text, false);
end
$move$
