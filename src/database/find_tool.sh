# Runs a PostgreSQL program: find_tool.sh PROGRAM SECONDS ARGUMENT...
# Debian keeps the programs of each version off the PATH. A dump is made and read by the programs of
# the server's major version, wherever they are: an older one that comes first on the PATH refuses
# the server for ever. Where there are none of that major, newer ones do. Everything else takes the
# PATH's, or the newest. SECONDS is the time after which it is ended from inside, so that it does
# not go on for ever when whoever asked for it is gone; 0 leaves it alone.
tool=$1
limit=$2
shift 2
# The container's own settings for libpq would lead elsewhere or change the dump's encoding.
unset PGHOSTADDR PGSERVICE PGSERVICEFILE PGOPTIONS PGTARGETSESSIONATTRS PGCLIENTENCODING
unset PGREQUIREAUTH PGREQUIREPEER PGTZ PGDATESTYLE
# Of one version and no other, where whoever asks says so.
[ -z "${PAYRAM_UPDATER_PROGRAMS:-}" ] || PATH=$PAYRAM_UPDATER_PROGRAMS:$PATH
# The address of a host that is known by name in the container's networks alone.
if [ -n "${PAYRAM_HOSTADDR:-}" ]; then
  PGHOSTADDR=$PAYRAM_HOSTADDR
  export PGHOSTADDR
fi

# The directory that is off the PATH and has program $1: of major $2, else the nearest newer one;
# with $2 = 0 the newest there is. Nothing where there is none.
find_dir() {
  best=-1
  best_dir=
  for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
    /usr/local/pgsql/bin /opt/bitnami/postgresql/bin; do
    [ -x "$dir/$1" ] || continue
    number=${dir%/bin}
    number=${number##*[!0-9.]}
    number=${number%%.*}
    number=${number:-0}
    if [ "$2" -eq 0 ]; then
      [ "$number" -gt "$best" ] || continue
    else
      [ "$number" -ge "$2" ] || continue
      [ "$best" -lt 0 ] || [ "$number" -lt "$best" ] || continue
    fi
    best=$number
    best_dir=$dir
  done
  printf '%s' "$best_dir"
}

found=
if ! command -v "$tool" >/dev/null 2>&1; then
  found=$(find_dir "$tool" 0)
  if [ -z "$found" ]; then
    echo "$tool was not found; install PostgreSQL's client programs there (Debian: apt-get install postgresql-client), of the server's version or newer" >&2
    exit 127
  fi
fi
case $tool in
pg_dump | pg_restore)
  psql=psql
  command -v psql >/dev/null 2>&1 || psql=$(find_dir psql 0)/psql
  # Ten thousands of it are the major, 150004; hundreds before PostgreSQL 10, 90624.
  wanted=$("$psql" -XAtqw -c 'show server_version_num' 2>/dev/null </dev/null)
  case $wanted in
  '' | *[!0-9]*) wanted=0 ;;
  *) wanted=$((wanted / 10000)) ;;
  esac
  mine=0
  if [ -z "$found" ]; then
    mine=$("$tool" --version 2>/dev/null </dev/null)
    mine=${mine##*) }
    mine=${mine%%[!0-9]*}
    mine=${mine:-0}
  fi
  if [ -z "${PAYRAM_UPDATER_PROGRAMS:-}" ] && [ "$wanted" -gt 0 ] && [ "$mine" -ne "$wanted" ]; then
    better=$(find_dir "$tool" "$wanted")
    number=${better%/bin}
    number=${number##*[!0-9.]}
    # A newer one off the PATH is no better than a newer one on it.
    if [ -n "$better" ] && { [ "$mine" -lt "$wanted" ] || [ "${number%%.*}" = "$wanted" ]; }; then
      found=$better
    fi
  fi
  ;;
esac
if [ -n "$found" ]; then
  PATH=$found:$PATH
  export PATH
fi
if [ "$limit" -gt 0 ] && timeout -k 5 5 true >/dev/null 2>&1; then
  exec timeout -k 5 "$limit" "$tool" "$@"
fi
exec "$tool" "$@"
