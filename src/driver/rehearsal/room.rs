//! What a rehearsal may take of this host: memory, and space on a disk. Reads only.

use std::path::Path;

use serde_json::Value;

use crate::driver::backup::too_little_room;
use crate::machine::failure::{Failure, FailureCode};
use crate::plan::free_bytes;

/// What is left free on every disk that a rehearsal writes to: it is ended before.
pub(super) const LEFT_FREE: u64 = 512 << 20;

/// Memory that stays for the shop and the host, beyond what they take now: so much, or a tenth of
/// all of it where that is more.
const LEFT_TO_THE_HOST: u64 = 256 << 20;

/// Less than this is no trial of a shop.
const LEAST_MEMORY: u64 = 256 << 20;

/// Bytes of memory that a version may take on the copy: what is free beyond the reserve, and no
/// more than the shop's container may.
///
/// # Errors
/// Why that is too little, with what is needed and what is there.
pub(super) fn memory(shop: &Value) -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| {
        let message = format!("read /proc/meminfo: {error}");
        Failure::new(FailureCode::RuntimeInspectionFailed, message)
    })?;
    let own = shop["HostConfig"]["Memory"].as_u64().filter(|limit| *limit > 0);
    allowance(&text, own)
}

fn allowance(meminfo: &str, own_limit: Option<u64>) -> Result<u64, Failure> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (Some(total), Some(available)) = (kib("MemTotal"), kib("MemAvailable")) else {
        let message = "/proc/meminfo does not say how much memory is free";
        return Err(Failure::new(FailureCode::RuntimeInspectionFailed, message));
    };
    let reserve = LEFT_TO_THE_HOST.max(total * 1024 / 10);
    let spare = (available * 1024).saturating_sub(reserve);
    if spare < LEAST_MEMORY {
        let mb = |bytes: u64| bytes / 1_000_000;
        let message = format!(
            "too little memory to try a version beside the shop: need {} MB beyond a reserve of {} MB, {} MB are available",
            mb(LEAST_MEMORY),
            mb(reserve),
            mb(available * 1024)
        );
        return Err(Failure::new(FailureCode::RuntimeInspectionFailed, message));
    }
    Ok(own_limit.map_or(spare, |own| own.min(spare)))
}

/// Refuses where the copy does not fit: the dump, the cluster that is made of it with its log, what
/// a migration may write anew, and files.
///
/// # Errors
/// `DISK_SPACE_LOW` with the disk.
pub(super) async fn must_hold(directory: &Path, database: u64, files: u64) -> Result<(), Failure> {
    const LOG: u64 = 1 << 30;
    let need = database.saturating_mul(3).saturating_add(files).saturating_add(LOG + LEFT_FREE);
    match free_bytes(directory).await {
        Some(have) if have < need => {
            Err(too_little_room(directory, need, have, "a copy of the database to rehearse on"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Which of these paths lies on a disk that is nearly full; none while all have room.
pub(super) async fn nearly_full(paths: &[&Path]) -> Option<String> {
    for path in paths {
        if let Some(have) = free_bytes(path).await.filter(|have| *have < LEFT_FREE) {
            let mb = |bytes: u64| bytes / 1_000_000;
            return Some(format!(
                "{} has {} MB free, and {} MB stay free for the shop",
                path.display(),
                mb(have),
                mb(LEFT_FREE)
            ));
        }
    }
    None
}

/// The most memory that a container took so far, what the kernel keeps of its files included; none
/// where the kernel does not say.
pub(super) fn memory_taken(container: &Value) -> Option<u64> {
    let pid = container["State"]["Pid"].as_u64().filter(|pid| *pid > 0)?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if number == "0" && controllers.is_empty() {
            return Some(format!("/sys/fs/cgroup{path}/memory.peak"));
        }
        let is_memory = controllers.split(',').any(|one| one == "memory");
        is_memory.then(|| format!("/sys/fs/cgroup/memory{path}/memory.max_usage_in_bytes"))
    };
    let read = |path: String| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    groups.lines().filter_map(path).find_map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_given_what_is_free_beyond_the_reserve_and_no_more_than_the_shop() {
        let host = |available: u64| format!("MemTotal: 4194304 kB\nMemAvailable: {available} kB\n");
        let reserve = 4_294_967_296 / 10;
        let two_gib = 2 << 30;
        assert_eq!(allowance(&host(2 << 20), None), Ok(two_gib - reserve));
        assert_eq!(allowance(&host(2 << 20), Some(1 << 30)), Ok(1 << 30));
        let refused = allowance(&host(512 << 10), None).expect_err("too little");
        assert!(refused.message.contains("536 MB are available"), "{refused}");
        assert!(allowance("", None).is_err());
    }
}
