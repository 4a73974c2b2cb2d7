//! What a version leaves that is looked at once it was tried: its log and its room on disk.

use std::path::Path;

/// A line of a log that names something out of reach, as resolvers, C libraries and the usual
/// runtimes say it.
pub(super) fn unreachable_in(log: &str) -> Option<&str> {
    const WORDS: [&str; 10] = [
        "Temporary failure in name resolution",
        "Name or service not known",
        "no such host",
        "Could not resolve host",
        "could not translate host name",
        "getaddrinfo",
        "ENOTFOUND",
        "Network is unreachable",
        "network is unreachable",
        "ENETUNREACH",
    ];
    log.lines().rev().find(|line| WORDS.iter().any(|word| line.contains(word)))
}

/// Bytes that the whole of a directory takes.
pub(super) async fn disk_taken(directory: &Path) -> Option<u64> {
    let directory = directory.to_owned();
    let counting =
        tokio::task::spawn_blocking(move || crate::restore_point::bytes_of(&directory).ok());
    counting.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_that_names_something_out_of_reach_is_found() {
        let log = "core starts\ndial tcp: lookup api.example.org: no such host\nworker starts";
        assert_eq!(unreachable_in(log), Some("dial tcp: lookup api.example.org: no such host"));
        assert_eq!(unreachable_in("connection to the database: Connection refused"), None);
    }
}
