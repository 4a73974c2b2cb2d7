//! Which of the files that a container changed in its own file system matter: those that no mount
//! holds and that are no known scratch. Pure; called by the plan, which lists them, and by the
//! driver, which keeps them.

use serde_json::Value;

use crate::engine::{Change, ChangeKind};

/// Directories whose contents programs write and can do without: what is temporary, what runs,
/// logs and caches (Filesystem Hierarchy Standard 3.0).
const SCRATCH: [&str; 9] = [
    "/tmp",
    "/run",
    "/var/run",
    "/var/tmp",
    "/var/log",
    "/var/cache",
    "/var/lock",
    "/dev",
    "/proc",
];

/// Names of files and directories that are written again by themselves.
const SCRATCH_NAMES: [&str; 5] =
    [".cache", "__pycache__", ".bash_history", ".psql_history", ".lesshst"];

/// Ends of such names.
const SCRATCH_ENDS: [&str; 4] = [".pid", ".log", ".sock", ".pyc"];

/// The paths that matter, in order: an added directory stands for what is in it.
pub fn files(container: &Value, changes: &[Change]) -> Vec<String> {
    let mounts: Vec<&str> = container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|mount| mount["Destination"].as_str())
        .collect();
    let mut paths: Vec<&Change> = changes
        .iter()
        .filter(|change| change.kind != ChangeKind::Deleted)
        .filter(|change| !is_scratch(&change.path))
        // On a mount, or a directory made for one.
        .filter(|change| {
            !mounts.iter().any(|m| is_below(&change.path, m) || is_below(m, &change.path))
        })
        .collect();
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    // A directory that is only changed because something in it was.
    let holds = |outer: &Change| {
        changes.iter().any(|inner| inner.path != outer.path && is_below(&inner.path, &outer.path))
    };
    let mut kept: Vec<String> = Vec::new();
    for change in paths {
        let is_only_on_the_way = change.kind == ChangeKind::Modified && holds(change);
        let is_held = kept.iter().any(|outer| is_below(&change.path, outer));
        if !is_only_on_the_way && !is_held {
            kept.push(change.path.clone());
        }
    }
    kept
}

/// Whether a path is this one or lies below it.
fn is_below(path: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    path == outer || path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether what lies at a path inside of a container is written again by itself.
pub fn is_scratch(path: &str) -> bool {
    SCRATCH.iter().any(|directory| is_below(path, directory))
        || path.split('/').any(|name| SCRATCH_NAMES.contains(&name))
        || SCRATCH_ENDS.iter().any(|end| path.ends_with(end))
}

/// A path as part of a file's name.
pub fn file_name(path: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    path.trim_start_matches('/').chars().take(80).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_lies_on_no_mount_and_is_no_scratch_is_listed_once() {
        let container = json!({"Mounts": [
            {"Destination": "/var/lib/payram"}, {"Destination": "/root/payram"},
        ]});
        let change = |path: &str, kind| Change { path: path.into(), kind };
        let changes = [
            change("/etc", ChangeKind::Modified),
            change("/etc/ssl", ChangeKind::Modified),
            change("/etc/ssl/shop.pem", ChangeKind::Added),
            change("/opt/keys", ChangeKind::Added),
            change("/opt/keys/hot", ChangeKind::Added),
            change("/opt", ChangeKind::Modified),
            change("/var", ChangeKind::Modified),
            change("/var/lib", ChangeKind::Modified),
            change("/var/lib/payram", ChangeKind::Added),
            change("/root", ChangeKind::Modified),
            change("/root/payram", ChangeKind::Added),
            change("/root/.bash_history", ChangeKind::Added),
            change("/run/nginx.pid", ChangeKind::Added),
            change("/var/log/x", ChangeKind::Added),
            change("/opt/app/core.pid", ChangeKind::Added),
            change("/opt/app/wallet.lock", ChangeKind::Added),
            change("/usr/share/gone", ChangeKind::Deleted),
            change("/opt/payram/config.yml", ChangeKind::Modified),
        ];
        assert_eq!(
            files(&container, &changes),
            ["/etc/ssl/shop.pem", "/opt/app/wallet.lock", "/opt/keys", "/opt/payram/config.yml"]
        );
        assert_eq!(file_name("/etc/ssl/a b.pem"), "etc_ssl_a_b.pem");
    }
}
