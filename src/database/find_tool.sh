# Runs a PostgreSQL program: find_tool.sh PROGRAM SECONDS ARGUMENT...
# Debian keeps the programs of each version off the PATH; the newest one there is taken when
# the PATH has none. SECONDS is the time after which it is ended from inside, so that it does
# not go on for ever when whoever asked for it is gone; 0 leaves it alone.
tool=$1
limit=$2
shift 2
# The container's own settings for libpq would lead elsewhere or change the dump's encoding.
unset PGHOSTADDR PGSERVICE PGSERVICEFILE PGOPTIONS PGTARGETSESSIONATTRS PGCLIENTENCODING
unset PGREQUIREAUTH PGREQUIREPEER PGTZ PGDATESTYLE
# Of one version and no other, where whoever asks says so.
[ -z "${PAYRAM_UPDATER_PROGRAMS:-}" ] || PATH=$PAYRAM_UPDATER_PROGRAMS:$PATH
if ! command -v "$tool" >/dev/null 2>&1; then
  newest=-1
  for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
    /usr/local/pgsql/bin /opt/bitnami/postgresql/bin; do
    [ -x "$dir/$tool" ] || continue
    number=${dir%/bin}
    number=${number##*[!0-9.]}
    number=${number%%.*}
    if [ "${number:-0}" -gt "$newest" ]; then
      newest=${number:-0}
      found=$dir
    fi
  done
  if [ "$newest" -lt 0 ]; then
    echo "$tool was not found; install PostgreSQL's client programs there (Debian: apt-get install postgresql-client), of the server's version or newer" >&2
    exit 127
  fi
  PATH=$found:$PATH
  export PATH
fi
if [ "$limit" -gt 0 ] && timeout -k 5 5 true >/dev/null 2>&1; then
  exec timeout -k 5 "$limit" "$tool" "$@"
fi
exec "$tool" "$@"
