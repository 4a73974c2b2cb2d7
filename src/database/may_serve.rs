//! Whether a container can be a PostgreSQL server of a directory that it reaches from above, told
//! without running it: by its command, its image's command or its environment. What packs files,
//! ships logs or makes dumps is none.
//!
//! Called by `directory`, over a raw inspection. Pure.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::host_servers::{Place, reaches};

/// Programs that are a server, or start one.
const PROGRAMS: [&str; 4] = ["postgres", "postmaster", "pg_ctl", "pg_ctlcluster"];

/// What comes right before a word that names a role, a database or a host, and no program.
const NAMING: [&str; 8] =
    ["-U", "--username", "-d", "--dbname", "-h", "--host", "-u", "--maintenance-db"];

/// Whether a command line, as the kernel tells it, is a server's.
pub fn is_server_program(command: &str) -> bool {
    let first = command.split(' ').next().unwrap_or_default();
    let first = first.trim_end_matches(':');
    ["postgres", "postmaster"].contains(&base(first))
}

/// Whether this container starts a server, or says that its data lie in this directory of the
/// host.
pub(super) fn may_serve(container: &Value, directory: &Path) -> bool {
    let command = command(container);
    let inside = names_of(container, directory);
    let is_directory = |word: &str| inside.iter().any(|inside| Path::new(word) == inside);
    let before = std::iter::once("").chain(command.iter().map(String::as_str));
    let starts = before.zip(&command).any(|(before, word)| {
        // A path is a program's where programs are; a directory may be called so, too.
        let is_command = !word.contains('/') || word.contains("bin/") || before.is_empty();
        let is_program = is_command && PROGRAMS.contains(&base(word)) && !NAMING.contains(&before);
        let data = word.strip_prefix("-D").filter(|data| !data.is_empty());
        let data = data.or(Some(word.as_str()).filter(|_| before == "-D"));
        is_program || data.is_some_and(is_directory)
    });
    let environment = container["Config"]["Env"].as_array().into_iter().flatten();
    let mut values = environment.filter_map(|one| one.as_str()?.split_once('='));
    starts || values.any(|(_, value)| is_directory(value))
}

/// The words of its entry point and command, those of its image where it has none of its own;
/// those of a shell's script singly.
fn command(container: &Value) -> Vec<String> {
    let arguments = container["Args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let all = container["Path"].as_str().into_iter().chain(arguments);
    let apart = |c: char| c.is_whitespace() || "'\";&|()".contains(c);
    all.flat_map(|part| part.split(apart))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What the directory is called inside of the container, by each mount that holds it.
fn names_of(container: &Value, directory: &Path) -> Vec<PathBuf> {
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    let names = mounts.filter_map(|mount| {
        let (from, to) = (mount["Source"].as_str()?, Path::new(mount["Destination"].as_str()?));
        let from = Path::new(from).canonicalize().unwrap_or_else(|_| from.into());
        let rest = match directory.strip_prefix(&from) {
            Ok(rest) => rest,
            // Another name of one that holds it.
            Err(_) => {
                let place = Place::of(&from).ok()?;
                let above = directory.ancestors().find(|above| reaches(above, place))?;
                directory.strip_prefix(above).ok()?
            }
        };
        Some(if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) })
    });
    names.collect()
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_can_be_a_server_is_told_from_who_only_reaches_the_directory() {
        let may = |path: &str, args: &[&str], env: &[&str]| {
            let container = json!({
                "Path": path, "Args": args, "Config": {"Env": env},
                "Mounts": [{"Source": "/srv/payram/db", "Destination": "/db", "RW": true}],
            });
            may_serve(&container, Path::new("/srv/payram/db/postgres"))
        };
        for (path, args) in [
            ("/usr/lib/postgresql/15/bin/postgres", &["-D", "/db/postgres"][..]),
            // An image's own entry point and command.
            ("docker-entrypoint.sh", &["postgres"]),
            ("sh", &["-c", "exec gosu postgres pg_ctl start -D /x"]),
            ("/opt/wrapper", &["-D", "/db/postgres"]),
            ("/opt/wrapper", &["-D/db/postgres"]),
        ] {
            assert!(may(path, args, &[]), "{path} {args:?}");
        }
        assert!(may("/entry", &[], &["PGDATA=/db/postgres"]));
        for (path, args) in [
            ("sleep", &["infinity"][..]),
            ("sh", &["-c", "pg_dump -U postgres -h db shop > /out"]),
            ("tar", &["-c", "/db/postgres"]),
            ("/bin/postgres_exporter", &["--port", "9187"]),
        ] {
            assert!(!may(path, args, &["PGDATA=/var/lib/postgresql/data"]), "{path} {args:?}");
        }
    }

    #[test]
    fn a_server_is_known_by_its_own_command_line() {
        for command in [
            "postgres -D /db",
            "/usr/lib/postgresql/15/bin/postgres -D /x",
            "postgres: checkpointer",
        ] {
            assert!(is_server_program(command), "{command}");
        }
        for command in ["psql -U postgres", "/bin/postgres_exporter", "sh -c postgres", ""] {
            assert!(!is_server_program(command), "{command}");
        }
    }
}
