#!/usr/bin/env bash
# Installs payram-updater, or a newer one in its place, or removes it.
#
#   curl -fsSL URL/setup_payram_updater.sh | sudo bash
#   curl -fsSL URL/setup_payram_updater.sh | sudo PAYRAM_UPDATER_SHA256=… bash
#   sudo bash setup_payram_updater.sh --uninstall [--yes] [--remove-backups]
#
# Environment:
#   POLICY_URL, RUNTIME_MANIFEST_URL   written into the settings when there are none yet
#   PAYRAM_UPDATER_VERSION             this release; otherwise the latest
#   PAYRAM_UPDATER_DOWNLOAD_URL        the program itself
#   PAYRAM_UPDATER_CHECKSUM_URL        its checksum; otherwise the program's URL and .sha256
#   PAYRAM_UPDATER_SHA256              the checksum itself
#   FORCE_REINSTALL=1                  also when the same program is installed already
#   ENABLE_SERVICE=0                   install, but don't enable and start the service
#   QUIET=1                            only warnings and errors
#
# Without a checksum, or with one that differs, nothing is installed. It asks only on a terminal.
# When it is interrupted, what was there before is there again. The whole file is read before any
# of it is done: a download that was cut off does nothing.
set -euo pipefail

readonly RELEASES_URL=https://github.com/PayRam/payram-updates/releases
# Where a release brings its own; the environment wins.
readonly DEFAULT_POLICY_URL=
readonly DEFAULT_MANIFEST_URL=

readonly PROGRAM=/usr/local/bin/payram-updater
readonly SETTINGS_DIR=/etc/payram
readonly SETTINGS=$SETTINGS_DIR/updater.env
readonly UNIT_NAME=payram-updater.service
readonly UNIT=/etc/systemd/system/$UNIT_NAME
readonly JOB_NAME=com.payram.updater
readonly JOB=/Library/LaunchDaemons/$JOB_NAME.plist

# What must be undone when this ends early.
work=
fresh_program=
was_running=no
undo=()
is_done=no

say() {
    is_yes "${QUIET:-}" || printf '%s\n' "$*"
}
warn() {
    printf 'warning: %s\n' "$*" >&2
}
die() {
    printf 'setup_payram_updater.sh: %s\n' "$*" >&2
    exit 1
}
usage_error() {
    printf 'setup_payram_updater.sh: %s\n' "$*" >&2
    exit 2
}
has() {
    command -v "$1" >/dev/null 2>&1
}
is_yes() {
    case $(printf '%s' "$1" | tr '[:upper:]' '[:lower:]') in
    1 | true | yes | y) return 0 ;;
    *) return 1 ;;
    esac
}

# Asks on the terminal, whatever standard input is (it is this script, in `curl … | bash`).
has_terminal() {
    [[ -t 1 ]] && { : </dev/tty; } 2>/dev/null
}
ask() { # QUESTION -> $answer
    printf '%s ' "$1" >/dev/tty
    answer=
    read -r answer </dev/tty || die "no answer; nothing was changed"
}

# --- what this machine is ----------------------------------------------------------------------

os=
arch=
find_machine() {
    case $(uname -s) in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    *) die "runs on Linux and macOS, not on $(uname -s)" ;;
    esac
    case $(uname -m) in
    x86_64 | amd64) arch=amd64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) die "there is no payram-updater for $(uname -m); only for x86_64 and arm64" ;;
    esac
}

wants_service() {
    is_yes "${ENABLE_SERVICE:-1}"
}

check_machine() {
    [[ $(id -u) == 0 ]] || die "must run as root: sudo bash setup_payram_updater.sh"
    find_machine
    if [[ $os == linux ]] && wants_service && ! systemd_runs; then
        die "systemd does not run here. Nothing was installed. With ENABLE_SERVICE=0 everything but the service is; start \`payram-updater serve\` by your own means then"
    fi
    if [[ $os == linux && -e /usr/bin/payram-updater ]]; then
        die "payram-updater is installed as a package (/usr/bin/payram-updater). Nothing was installed: upgrade or remove it with apt"
    fi
    has curl || has wget || die "needs curl or wget"
    has sha256sum || has shasum || die "needs sha256sum or shasum"
    has docker || warn "there is no docker command here. The updater starts without Docker, and waits for it"
}

systemd_runs() {
    has systemctl && [[ -d /run/systemd/system ]]
}

# --- the one that is there ----------------------------------------------------------------------

# The program as the service will run it: with the settings of the file, and not those that this
# script was given. An earlier tool may take a word that it does not know for `serve`.
ask_program() { # PROGRAM ARGUMENTS
    local limit=()
    has timeout && limit=(timeout 60)
    (cd / && env -i PATH="$PATH" HOME=/ ${limit[@]+"${limit[@]}"} "$@" </dev/null)
}

# A setting as the installed program reads it; nothing when it can't say.
setting() { # KEY
    ask_program "$PROGRAM" config "$1" --text 2>/dev/null || true
}

state_dir=
backup_dir=
find_directories() {
    if [[ -x $PROGRAM ]]; then
        state_dir=$(setting STATE_DIR)
        backup_dir=$(setting BACKUP_DIR)
    fi
    state_dir=${state_dir:-/var/lib/payram-updater}
    backup_dir=${backup_dir:-data/backups}
    [[ $backup_dir == /* ]] || backup_dir=$state_dir/$backup_dir
}

# An upgrade that is under way, waits for a person, or is still watched with its way back there.
refuse_while_busy() { # WHAT
    [[ -x $PROGRAM && -e $state_dir/journal.db ]] || return 0
    local status
    status=$(ask_program "$PROGRAM" status --json 2>/dev/null) ||
        status=$(ask_program "$PROGRAM" inspect --json 2>/dev/null) || true
    case $(printf '%s' "$status" | tr -d ' \n') in
    *'"active":true'*)
        die "an upgrade of PayRam is under way; $1 when it has ended (payram-updater watch)"
        ;;
    esac
    [[ $1 == remove* ]] || return 0
    case $(printf '%s' "$status" | tr -d ' \n') in
    *'"waitsFor":'*)
        die "the last upgrade of PayRam waits for your decision, and what it needs would be lost; see \`payram-updater inspect\`, and $1 afterwards"
        ;;
    *'"probation":{"state":"watching"'*)
        die "the last upgrade of PayRam is still watched, and its old container is still there; $1 when that has ended (payram-updater status says when)"
        ;;
    esac
}

tell_of_the_earlier_tool() {
    local name found=()
    for name in status.json history.jsonl; do
        [[ ! -e $state_dir/$name ]] || found+=("$name")
    done
    if ((${#found[@]} > 0)); then
        say "Found ${found[*]} of an earlier updater in $state_dir: left there. This one keeps a journal of its own and doesn't read them."
    fi
    if [[ -e $state_dir/updater-config.json ]]; then
        if grep -q '"autoUpdateEnabled"[[:space:]]*:[[:space:]]*true' "$state_dir/updater-config.json"; then
            say "Found updater-config.json in $state_dir: auto-update stays on, so an upgrade may begin at once. To turn it off: sudo payram-updater init --no-autoupdate"
        else
            say "Found updater-config.json in $state_dir: auto-update stays off."
        fi
    fi
    if compgen -G "$backup_dir/*.sql" >/dev/null; then
        say "Found .sql backups in $backup_dir: left there."
    fi
}

# --- download -----------------------------------------------------------------------------------

fetch() { # URL FILE
    if has curl; then
        curl --fail --silent --show-error --location --retry 3 --connect-timeout 15 \
            --proto '=https,http,file' --output "$2" "$1"
    else
        wget --quiet --tries=3 --timeout=15 --output-document="$2" "$1"
    fi
}

sum_of() { # FILE
    if has sha256sum; then
        sha256sum <"$1" | cut -d ' ' -f 1
    else
        shasum -a 256 <"$1" | cut -d ' ' -f 1
    fi
}

# The sum for a name in a file of `SUM  NAME` lines, or the only sum in it.
read_sum() { # FILE NAME
    tr -d '\r' <"$1" | awk -v name="$2" '
        $1 ~ /^[0-9a-fA-F]+$/ && length($1) == 64 {
            file = $2; sub(/^\*/, "", file); sub(/.*\//, "", file)
            if (file == name) { print tolower($1); found = 1; exit }
            only = $1; count++
        }
        END { if (!found && count == 1) print tolower(only) }'
}

wanted_sum=
download_url=
find_release() {
    local name=payram-updater-$os-$arch version=${PAYRAM_UPDATER_VERSION:-} base
    case $version in
    '') base=$RELEASES_URL/latest/download ;;
    *) base=$RELEASES_URL/download/v${version#v} ;;
    esac
    download_url=${PAYRAM_UPDATER_DOWNLOAD_URL:-$base/$name}
    local checksum_url=${PAYRAM_UPDATER_CHECKSUM_URL:-$download_url.sha256}
    if [[ -n ${PAYRAM_UPDATER_SHA256:-} ]]; then
        wanted_sum=$(printf '%s' "$PAYRAM_UPDATER_SHA256" | tr '[:upper:]' '[:lower:]')
        [[ $wanted_sum =~ ^[0-9a-f]{64}$ ]] ||
            usage_error "PAYRAM_UPDATER_SHA256 is not a SHA-256 checksum: expected 64 hexadecimal digits, found '$wanted_sum'"
        return
    fi
    fetch "$checksum_url" "$work/checksum" ||
        die "no checksum could be fetched from $checksum_url. Nothing was installed: give it in PAYRAM_UPDATER_SHA256"
    wanted_sum=$(read_sum "$work/checksum" "${download_url##*/}")
    [[ -n $wanted_sum ]] ||
        die "$checksum_url holds no SHA-256 checksum of ${download_url##*/}. Nothing was installed"
}

# Fetches the program, and has it run once before anything is replaced.
get_program() {
    local found said
    say "Fetching $download_url"
    fetch "$download_url" "$work/program" ||
        die "the program could not be fetched from $download_url. Nothing was installed"
    found=$(sum_of "$work/program")
    [[ $found == "$wanted_sum" ]] ||
        die "the checksum of $download_url is wrong: expected $wanted_sum, found $found. Nothing was installed"
    # Beside the one that it replaces, so that a rename puts it there.
    mkdir -p "${PROGRAM%/*}"
    rm -f "$PROGRAM".new.*
    fresh_program=$PROGRAM.new.$$
    install -m 0755 "$work/program" "$fresh_program"
    # Where one file alone can't be synced, everything is.
    sync "$fresh_program" 2>/dev/null || sync
    said=$(ask_program "$fresh_program" version --text 2>&1) ||
        die "what was fetched does not run on this machine ($os, $(uname -m)): ${said:-no word}. Nothing was installed"
    get_files || die "what was fetched ($said) is older than this installer. Nothing was installed"
    if [[ -n ${PAYRAM_UPDATER_VERSION:-} && $said != "payram-updater ${PAYRAM_UPDATER_VERSION#v}" ]]; then
        die "version ${PAYRAM_UPDATER_VERSION#v} was asked for, and this is $said. Nothing was installed"
    fi
    say "Checksum and program are good: $said"
}

# What the program itself brings, so that it can't be another version's.
get_files() {
    ask_program "$fresh_program" unit >"$work/unit" 2>/dev/null || return 1
    ask_program "$fresh_program" config --example >"$work/example" 2>/dev/null
}

# --- settings -----------------------------------------------------------------------------------

policy_url=
manifest_url=
# Before anything is installed: the two that have no default.
find_settings() {
    [[ ! -e $SETTINGS ]] || return 0
    policy_url=${POLICY_URL:-$DEFAULT_POLICY_URL}
    manifest_url=${RUNTIME_MANIFEST_URL:-$DEFAULT_MANIFEST_URL}
    if has_terminal; then
        if [[ -z $policy_url ]]; then
            ask "Upgrade policy (POLICY_URL, a URL or a path):"
            policy_url=$answer
        fi
        if [[ -z $manifest_url ]]; then
            ask "Runtime manifest (RUNTIME_MANIFEST_URL, a URL or a path):"
            manifest_url=$answer
        fi
    fi
    [[ -n $policy_url && -n $manifest_url ]] ||
        usage_error "there are no settings yet ($SETTINGS), and two have no default: POLICY_URL and RUNTIME_MANIFEST_URL. Nothing was installed: … | sudo POLICY_URL=… RUNTIME_MANIFEST_URL=… bash"
    case $policy_url$manifest_url in
    *[\"\\\`\$]* | *$'\n'*) usage_error "POLICY_URL and RUNTIME_MANIFEST_URL may not hold quotes, backslashes, backticks, dollars and line ends" ;;
    esac
}

write_settings() {
    # The directory may hold what others read; the file is for root alone.
    if [[ ! -d $SETTINGS_DIR ]]; then
        undo+=("rmdir '$SETTINGS_DIR' 2>/dev/null || true")
        mkdir -p "$SETTINGS_DIR"
    fi
    if [[ -e $SETTINGS ]]; then
        say "Settings are kept: $SETTINGS"
        # It may hold a password.
        chmod 0600 "$SETTINGS"
        return
    fi
    undo+=("rm -f '$SETTINGS' '$SETTINGS.new.$$'")
    (umask 077 && awk -v policy="$policy_url" -v manifest="$manifest_url" '
        /^POLICY_URL=/ { print "POLICY_URL=\"" policy "\""; next }
        /^RUNTIME_MANIFEST_URL=/ { print "RUNTIME_MANIFEST_URL=\"" manifest "\""; next }
        { print }' "$work/example" >"$SETTINGS.new.$$")
    mv "$SETTINGS.new.$$" "$SETTINGS"
    say "Settings: $SETTINGS (every one is in it, with its default)"
}

check_settings() {
    local said
    said=$(ask_program "$fresh_program" config --text 2>&1) || {
        printf '%s\n' "$said" | grep '✘' >&2 || printf '%s\n' "$said" >&2
        die "the settings are not good for this version (above). What was there is there again"
    }
}

# --- putting it in its place --------------------------------------------------------------------

# A file in the place of another one, which comes back when this ends early.
put() { # FILE PLACE MODE
    if [[ -e $2 ]]; then
        cp -p "$2" "$work/before.${2##*/}"
        undo+=("cp -p '$work/before.${2##*/}' '$2.new.$$' && mv '$2.new.$$' '$2'")
    else
        undo+=("rm -f '$2'")
    fi
    # Already beside it: only renamed.
    if [[ $1 != "$2.new.$$" ]]; then
        install -m "$3" "$1" "$2.new.$$"
    fi
    mv "$2.new.$$" "$2"
}

put_unit() {
    # A unit of somebody else's making may hold settings.
    if [[ -e $UNIT ]] && ! grep -q '^Type=notify' "$UNIT"; then
        cp -p "$UNIT" "$SETTINGS_DIR/$UNIT_NAME.before"
        say "The unit of the earlier updater is kept as $SETTINGS_DIR/$UNIT_NAME.before"
    fi
    mkdir -p "${UNIT%/*}"
    put "$work/unit" "$UNIT" 0644
}

# For root alone; the directories above it as they are made by others.
make_directory() { # DIRECTORY
    local at=$1 made=()
    [[ ! -d $1 ]] || return 0
    while [[ ! -d $at ]]; do
        made=("rmdir '$at' 2>/dev/null || true" ${made[@]+"${made[@]}"})
        at=${at%/*}
        at=${at:-/}
    done
    # What is undone is taken from the end: the innermost one first.
    undo+=("${made[@]}")
    mkdir -p "$1"
    chmod 0700 "$1"
}

put_all() {
    # Of a run that was killed.
    rm -f "$SETTINGS".new.* "$UNIT".new.* "$JOB".new.*
    write_settings
    check_settings
    find_directories_with "$fresh_program"
    make_directory "$state_dir"
    make_directory "$backup_dir"
    tell_of_the_earlier_tool
    put "$fresh_program" "$PROGRAM" 0755
    case $os in
    linux) put_unit ;;
    darwin)
        "$PROGRAM" unit --launchd >"$work/job"
        put "$work/job" "$JOB" 0644
        ;;
    esac
    say "Installed: $PROGRAM"
}

# Where this one will keep things, by the settings that are there now.
find_directories_with() { # PROGRAM
    local dir
    dir=$(ask_program "$1" config STATE_DIR --text 2>/dev/null) || true
    state_dir=${dir:-$state_dir}
    dir=$(ask_program "$1" config BACKUP_DIR --text 2>/dev/null) || true
    [[ -z $dir ]] || backup_dir=$dir
    [[ $backup_dir == /* ]] || backup_dir=$state_dir/$backup_dir
}

prepare_host() {
    # What was decided about auto-update before is kept.
    [[ ! -e $state_dir/updater-config.json ]] || return 0
    local said
    undo+=("rm -f '$state_dir/updater-config.json' '$state_dir/updater-config.json.partial'")
    said=$(ask_program "$PROGRAM" init --no-autoupdate --text 2>&1) && {
        say "Auto-update is off; payram-updater init changes that."
        return 0
    }
    printf '%s\n' "$said" >&2
    warn "this host is not ready yet (above); the updater is installed all the same. When it is: payram-updater init"
}

start_service() {
    case $os in
    linux)
        systemctl daemon-reload
        if ! wants_service; then
            say "The service is not enabled (ENABLE_SERVICE). Start it with: systemctl enable --now $UNIT_NAME"
            return
        fi
        systemctl enable --quiet "$UNIT_NAME"
        if ! systemctl restart "$UNIT_NAME"; then
            systemctl status --no-pager --lines 15 "$UNIT_NAME" >&2 || true
            if [[ $was_running == yes ]]; then
                die "the new version does not start (above). The one before is put back"
            fi
            is_done=yes
            die "installed, and the service does not start (above). Put it right, then: payram-updater restart"
        fi
        ;;
    darwin)
        wants_service || return 0
        launchctl bootout "system/$JOB_NAME" 2>/dev/null || true
        launchctl bootstrap system "$JOB" || die "launchd does not take $JOB"
        ;;
    esac
}

# --- does PayRam reach it -----------------------------------------------------------------------

container=
find_container() {
    container=$(setting TARGET_CONTAINER_NAME)
    [[ -z $container ]] || return 0
    # As the updater itself finds it; without policy and manifest by its image alone.
    container=$(ask_program "$PROGRAM" dry-run --to latest --json 2>/dev/null |
        sed -n 's/^ *"containerName": "\(.*\)",\{0,1\}$/\1/p') || true
    [[ -z $container ]] || return 0
    local repo
    repo=$(setting IMAGE_REPO_OVERRIDE)
    container=$(timeout 20 docker ps --format '{{.Names}} {{.Image}}' 2>/dev/null |
        awk -v repo="${repo:-payramapp/payram}:" 'index($2, repo) == 1 { print $1; exit }') || true
}

# Asks from inside of the container, with whatever it has. Prints one of: yes, no (no connection),
# denied (another answer than the updater gives PayRam), unknown.
asks_from_inside() { # ADDRESS PORT
    # shellcheck disable=SC2016 # for the container's shell
    timeout 30 docker exec "$container" sh -c '
        url=http://$1:$2/health
        if command -v curl >/dev/null; then
            case $(curl -s -o /dev/null -m 5 -w "%{http_code}" "$url") in
            200) echo yes ;; 000) echo no ;; *) echo denied ;;
            esac
        elif command -v wget >/dev/null; then
            wget -q -O /dev/null -T 5 "$url"
            case $? in 0) echo yes ;; 8) echo denied ;; *) echo no ;; esac
        elif command -v bash >/dev/null; then
            timeout 5 bash -c "
                exec 3<>/dev/tcp/$1/$2 || exit 1
                printf \"GET /health HTTP/1.1\r\nHost: $1:$2\r\nConnection: close\r\n\r\n\" >&3
                read -r line <&3 && case \$line in *\ 200\ *) exit 0 ;; *) exit 8 ;; esac" 2>/dev/null
            case $? in 0) echo yes ;; 8) echo denied ;; *) echo no ;; esac
        else echo unknown
        fi' sh "$1" "$2" 2>/dev/null || echo unknown
}

# Whether anybody listens there, asked from this host: a firewall lets it ask itself.
listens_at() { # ADDRESS PORT
    timeout 5 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null
}

check_reach() {
    [[ $os == linux ]] && wants_service && has docker || return 0
    find_container
    if [[ -z $container ]]; then
        say "No PayRam container runs; whether it reaches the updater was not tried."
        return
    fi
    local network gateway subnet port reached
    port=$(setting UPDATER_PORT)
    network=$(docker inspect -f '{{range $name, $n := .NetworkSettings.Networks}}{{if $n.Gateway}}{{println $name $n.Gateway}}{{end}}{{end}}' "$container" 2>/dev/null | head -n 1) || true
    gateway=${network#* }
    network=${network% *}
    if [[ -z $gateway ]]; then
        say "$container has no network with a gateway; whether it reaches the updater was not tried."
        return
    fi
    # The daemon looks for the container's network every few seconds.
    local tries=6
    while reached=$(asks_from_inside "$gateway" "$port") && [[ $reached == no ]] && ((--tries > 0)); do
        sleep 2
    done
    case $reached in
    yes) say "PayRam's container $container reaches the updater at http://$gateway:$port" ;;
    denied)
        warn "PayRam's container $container reaches the updater at http://$gateway:$port, and is not let in: it is not taken for PayRam's. Set TARGET_CONTAINER_NAME=$container in $SETTINGS, then: payram-updater restart"
        ;;
    no)
        if ! listens_at "$gateway" "$port"; then
            warn "the updater does not listen at http://$gateway:$port for the container $container, so the dashboard can't upgrade. Set TARGET_CONTAINER_NAME=$container in $SETTINGS, then: payram-updater restart"
            return
        fi
        subnet=$(docker network inspect -f '{{range .IPAM.Config}}{{println .Subnet}}{{end}}' "$network" | head -n 1)
        warn "PayRam's container $container does not reach the updater at http://$gateway:$port, so the dashboard can't upgrade. A firewall may be in the way; to let it through:"
        firewall_command "$subnet" "$gateway" "$port" >&2
        ;;
    *) say "Whether $container reaches the updater was not tried: it has nothing to ask with." ;;
    esac
}

firewall_command() { # SUBNET ADDRESS PORT
    if has ufw && ufw status 2>/dev/null | grep -q '^Status: active'; then
        printf '    sudo ufw allow proto tcp from %s to %s port %s\n' "$1" "$2" "$3"
    elif has firewall-cmd && firewall-cmd --state >/dev/null 2>&1; then
        printf "    sudo firewall-cmd --permanent --add-rich-rule='rule family=ipv4 source address=%s destination address=%s port port=%s protocol=tcp accept'\n" "$1" "$2" "$3"
        printf '    sudo firewall-cmd --reload\n'
    else
        printf '    sudo iptables -I INPUT -s %s -d %s -p tcp --dport %s -j ACCEPT\n' "$1" "$2" "$3"
    fi
}

# --- uninstall ----------------------------------------------------------------------------------

uninstall() { # yes|no, remove backups: yes|no
    [[ $(id -u) == 0 ]] || die "must run as root: sudo bash setup_payram_updater.sh --uninstall"
    find_machine
    if [[ $os == linux && -e /usr/bin/payram-updater ]]; then
        die "payram-updater is installed as a package; remove it with apt"
    fi
    find_directories
    refuse_while_busy "remove the updater"
    case $state_dir in
    / | /var | /var/lib | /etc | /usr | /home | /root | /opt | /srv)
        die "STATE_DIR is $state_dir, which is not the updater's alone. Nothing was removed"
        ;;
    esac
    if [[ $1 != yes ]]; then
        has_terminal || usage_error "asks before it removes anything, and there is no terminal: --yes"
        printf '%s\n' "Removes the service, $PROGRAM, $SETTINGS and $state_dir." >/dev/tty
        if [[ $2 == yes ]]; then
            printf '%s\n' "The backups in $backup_dir are removed, too." >/dev/tty
        else
            printf '%s\n' "The backups in $backup_dir stay." >/dev/tty
        fi
        printf '%s\n' "PayRam itself is not touched." >/dev/tty
        ask "Go on? (y/N)"
        is_yes "$answer" || die "nothing was removed"
    fi
    remove_service
    rm -f "$PROGRAM" "$PROGRAM".new.*
    rm -f "$SETTINGS" "$SETTINGS".new.*
    rmdir "$SETTINGS_DIR" 2>/dev/null || true
    rm -rf /run/payram-updater
    remove_state "$2"
    say "payram-updater is removed."
}

remove_service() {
    case $os in
    linux)
        if has systemctl && [[ -d /run/systemd/system ]]; then
            systemctl disable --now --quiet "$UNIT_NAME" 2>/dev/null || true
        fi
        rm -f "$UNIT" "$UNIT".new.* "${UNIT%/*}/multi-user.target.wants/$UNIT_NAME"
        rm -rf "$UNIT.d"
        if has systemctl && [[ -d /run/systemd/system ]]; then
            systemctl daemon-reload
            systemctl reset-failed "$UNIT_NAME" 2>/dev/null || true
        fi
        ;;
    darwin)
        launchctl bootout "system/$JOB_NAME" 2>/dev/null || true
        rm -f "$JOB" /var/log/payram-updater.log
        ;;
    esac
}

# Everything of ours in the state directory but the backups, and what was put aside of a shop's own
# files, which nobody else has.
remove_state() { # remove backups: yes|no
    local name kept=()
    if [[ $1 == yes ]]; then
        rm -f "$backup_dir"/payram-backup-* "$backup_dir"/manual-backup-*
        rmdir "$backup_dir" 2>/dev/null || true
    fi
    [[ -d $state_dir ]] || return 0
    for name in journal.db journal.db-wal journal.db-shm lock specs database.json database.json.partial \
        status.json history.jsonl updater-config.json updater-config.json.partial; do
        rm -rf "${state_dir:?}/$name"
    done
    for name in unmounted files restore; do
        if [[ $1 == yes ]]; then
            rm -rf "${state_dir:?}/$name"
        elif [[ -d $state_dir/$name ]]; then
            rmdir "$state_dir/$name" 2>/dev/null || kept+=("$state_dir/$name")
        fi
    done
    rmdir "$state_dir/data/backups" "$state_dir/data" "$state_dir" 2>/dev/null || true
    [[ ! -d $backup_dir ]] || kept=("$backup_dir" ${kept[@]+"${kept[@]}"})
    if ((${#kept[@]} > 0)); then
        say "Kept: ${kept[*]}"
    fi
    if [[ -d $state_dir && ${#kept[@]} == 0 ]]; then
        warn "$state_dir holds what is not the updater's, and stays"
    fi
}

# --- the whole ----------------------------------------------------------------------------------

# Whatever ends this before it is done: what was there before is there again. Each part of it can be
# done twice, so that a signal in the middle of it begins it again.
finish() { # EXIT CODE
    local at
    set +e
    if [[ $is_done == no ]]; then
        if ((${#undo[@]} > 0)) && [[ $os == linux && $was_running == no ]] && systemd_runs; then
            systemctl disable --now --quiet "$UNIT_NAME" 2>/dev/null
        fi
        for ((at = ${#undo[@]} - 1; at >= 0; at--)); do
            eval "${undo[at]}"
        done
        if ((${#undo[@]} > 0)) && [[ $os == linux ]] && systemd_runs; then
            systemctl daemon-reload
            if [[ $was_running == yes ]]; then
                systemctl restart "$UNIT_NAME" || warn "the service that was there before does not start"
            fi
        fi
    fi
    [[ -z $fresh_program ]] || rm -f "$fresh_program"
    [[ -z $work ]] || rm -rf "$work"
    exit "$1"
}

# A second signal changes nothing any more.
stop() { # EXIT CODE
    trap '' HUP INT TERM
    trap - EXIT
    finish "$1"
}

is_installed_already() {
    [[ -x $PROGRAM ]] && ! is_yes "${FORCE_REINSTALL:-}" && [[ $(sum_of "$PROGRAM") == "$wanted_sum" ]]
}

install_it() {
    check_machine
    find_directories
    refuse_while_busy "install"
    find_settings
    work=$(mktemp -d)
    find_release
    if is_installed_already; then
        say "This very program is installed already; FORCE_REINSTALL=1 installs it again."
        # The rest may be missing all the same.
        fresh_program=$PROGRAM.new.$$
        install -m 0755 "$PROGRAM" "$fresh_program"
        get_files || die "the installed program is older than this installer: FORCE_REINSTALL=1"
    else
        if [[ -x $PROGRAM ]] && has_terminal && ! is_yes "${QUIET:-}" && ! is_yes "${FORCE_REINSTALL:-}"; then
            ask "$PROGRAM is there: replace it? (Y/n)"
            [[ -z $answer ]] || is_yes "$answer" || die "nothing was changed"
        fi
        get_program
    fi
    if [[ $os == linux ]] && systemd_runs && systemctl is-active --quiet "$UNIT_NAME"; then
        was_running=yes
    fi
    put_all
    prepare_host
    start_service
    is_done=yes
    check_reach
    say "Done. Next: payram-updater inspect"
}

main() {
    local wants=install yes=no remove_backups=no
    while (($# > 0)); do
        case $1 in
        --uninstall) wants=uninstall ;;
        --yes | -y) yes=yes ;;
        --remove-backups) remove_backups=yes ;;
        --help | -h)
            sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]:-/dev/null}"
            exit 0
            ;;
        *) usage_error "knows no '$1'; known: --uninstall [--yes] [--remove-backups], --help" ;;
        esac
        shift
    done
    trap 'finish $?' EXIT
    trap 'stop 129' HUP
    trap 'stop 130' INT
    trap 'stop 143' TERM
    if [[ $wants == uninstall ]]; then
        is_done=yes
        uninstall "$yes" "$remove_backups"
    else
        [[ $yes == no && $remove_backups == no ]] || usage_error "--yes and --remove-backups belong to --uninstall"
        install_it
    fi
}

main "$@"
