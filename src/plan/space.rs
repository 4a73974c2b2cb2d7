//! The arithmetic of free space: what an upgrade needs, where, and whether it is there.
//!
//! Called by `preflight`, which looks at the file systems; this decides and looks at nothing.
//! Needs that lie on the same file system add up: each alone may fit where all together don't.

use std::path::{Path, PathBuf};

use super::Check;

/// Bytes in the GB of the contract and of the messages.
pub const GB: u64 = 1_000_000_000;

/// The least that is kept for backups, whatever the database's size.
const BACKUP_LEAST: u64 = GB;

/// An image whose size the registry does not say.
const IMAGE_UNKNOWN: u64 = 4 * GB;

/// What the write-ahead log may grow by while a dump is restored (`max_wal_size`, 1 GB by
/// default: PostgreSQL manual, section 20.5.2).
const PROOF_LOG: u64 = GB;

/// What the system itself needs to go on.
const ROOT: u64 = GB / 2;

/// What is known of an upgrade's appetite.
#[derive(Clone, Debug)]
pub struct Appetite<'a> {
    /// Where backups are written.
    pub backup_dir: &'a Path,
    /// Where the restore point is written, and what it takes; none when nothing is known of it.
    pub restore_point: Option<(&'a Path, u64)>,
    /// Where the database's server writes the dump that is restored to prove it; none when it is
    /// not restored, or not on this host.
    pub proof_dir: Option<&'a Path>,
    /// Where the engine keeps images; none when that is not on this host.
    pub data_root: Option<&'a Path>,
    /// The database's size on disk.
    pub database_bytes: Option<u64>,
    /// The sizes of the images to pull, in the order of the route.
    pub image_bytes: &'a [Option<u64>],
}

/// Bytes that are needed below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// `disk:backup`
    pub name: &'static str,
    /// Where.
    pub path: PathBuf,
    /// How much.
    pub bytes: u64,
    /// What for, and how much that is a guess.
    pub why: String,
    /// Whether it is over before the next of these begins: of all that are in turn, only the
    /// largest counts.
    pub is_in_turn: bool,
}

/// A file system, as far as space goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// `st_dev`: the same for two paths on the same file system.
    pub device: u64,
    /// Bytes free for a process without privileges.
    pub free_bytes: u64,
}

/// What an upgrade needs.
///
/// Every hop writes a backup of its own, and all are kept. Restore points and images are
/// needed one at a time, because a hop that is verified tidies its own away.
pub fn needs(appetite: &Appetite<'_>) -> Vec<Need> {
    let hops = u64::try_from(appetite.image_bytes.len()).unwrap_or(u64::MAX).max(1);
    let mut needs = Vec::new();
    let (backup, why) = match appetite.database_bytes {
        Some(size) => (
            size.saturating_add(size / 2).saturating_mul(hops).max(BACKUP_LEAST),
            match hops {
                1 => format!("backup: 1.5 times a database of {}, at least 1 GB", gb(size)),
                hops => format!(
                    "backup: 1.5 times a database of {} for each of {hops} hops, at least 1 GB",
                    gb(size)
                ),
            },
        ),
        None => (
            BACKUP_LEAST,
            "backup: the database's size is not known, so the minimum is taken".to_owned(),
        ),
    };
    needs.push(Need {
        name: "disk:backup",
        path: appetite.backup_dir.into(),
        bytes: backup,
        why,
        is_in_turn: false,
    });
    if let (Some(directory), Some(size)) = (appetite.proof_dir, appetite.database_bytes) {
        needs.push(Need {
            name: "disk:proof",
            path: directory.into(),
            bytes: size.saturating_add(PROOF_LOG.min(size.saturating_mul(2))),
            why: "proof of the backup: restored beside the database, with its log (twice the \
                  size, 1 GB at most), and dropped before the restore point is made \
                  (BACKUP_PROOF=full)"
                .to_owned(),
            is_in_turn: true,
        });
    }
    if let Some((directory, bytes)) = appetite.restore_point {
        needs.push(Need {
            name: "disk:restorePoint",
            path: directory.into(),
            bytes,
            why: "restore point: a copy of the database".to_owned(),
            is_in_turn: true,
        });
    }
    if let Some(root) = appetite.data_root {
        let is_known = appetite.image_bytes.iter().all(Option::is_some);
        let largest = appetite.image_bytes.iter().map(|size| size.unwrap_or(IMAGE_UNKNOWN)).max();
        needs.push(Need {
            name: "disk:image",
            path: root.into(),
            bytes: largest.unwrap_or(IMAGE_UNKNOWN),
            why: match is_known && largest.is_some() {
                true => "image: its size as the registry says it".to_owned(),
                false => "image: the registry does not say its size, so 4 GB is taken".to_owned(),
            },
            is_in_turn: false,
        });
    }
    needs.push(Need {
        name: "disk:root",
        path: PathBuf::from("/"),
        bytes: ROOT,
        why: "the system itself".to_owned(),
        is_in_turn: false,
    });
    needs
}

/// A check for each need, against the file system that it lies on; an `Err` says why that
/// can't be told, and does not pass.
pub fn weigh(needs: &[(Need, Result<Filesystem, String>)]) -> Vec<Check> {
    needs
        .iter()
        .map(|(need, filesystem)| match filesystem {
            Ok(filesystem) => weigh_one(need, *filesystem, needs),
            Err(reason) => Check {
                name: need.name.to_owned(),
                passed: false,
                message: format!(
                    "{}: need {} ({}), what is free can't be told: {reason}",
                    need.path.display(),
                    gb(need.bytes),
                    need.why
                ),
                need_bytes: Some(need.bytes),
                have_bytes: None,
            },
        })
        .collect()
}

fn weigh_one(
    need: &Need,
    filesystem: Filesystem,
    all: &[(Need, Result<Filesystem, String>)],
) -> Check {
    let shared: Vec<&Need> = all
        .iter()
        .filter(|(_, other)| matches!(other, Ok(other) if other.device == filesystem.device))
        .map(|(need, _)| need)
        .collect();
    let in_turn = shared.iter().filter(|need| need.is_in_turn).map(|need| need.bytes).max();
    let total = shared
        .iter()
        .filter(|need| !need.is_in_turn)
        .fold(in_turn.unwrap_or_default(), |sum, need| sum.saturating_add(need.bytes));
    let have = filesystem.free_bytes;
    let mut message = format!("{}: need {} ({})", need.path.display(), gb(need.bytes), need.why);
    if shared.len() > 1 {
        let names: Vec<&str> = shared.iter().map(|need| need.name).collect();
        message.push_str(&format!(
            ", {} in all on the same file system ({})",
            gb(total),
            names.join(", ")
        ));
    }
    message.push_str(&format!(", have {}", gb(have)));
    if total > have {
        message.push_str(&format!(", short by {}", gb(total - have)));
    }
    Check {
        name: need.name.to_owned(),
        passed: total <= have,
        message,
        need_bytes: Some(need.bytes),
        have_bytes: Some(have),
    }
}

/// Bytes for a person: in GB with two digits, small ones in MB, rounded up, so that what is
/// short never reads as zero.
pub fn gb(bytes: u64) -> String {
    let (unit, name) = if bytes >= GB / 10 { (GB, "GB") } else { (1_000_000, "MB") };
    let hundredths = u128::from(bytes).saturating_mul(100).div_ceil(u128::from(unit));
    format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn appetite<'a>(database: Option<u64>, images: &'a [Option<u64>]) -> Appetite<'a> {
        Appetite {
            backup_dir: Path::new("/backups"),
            restore_point: database.map(|size| (Path::new("/db"), size)),
            proof_dir: None,
            data_root: Some(Path::new("/docker")),
            database_bytes: database,
            image_bytes: images,
        }
    }

    fn bytes(needs: &[Need], name: &str) -> Option<u64> {
        needs.iter().find(|need| need.name == name).map(|need| need.bytes)
    }

    fn on(device: u64, free_bytes: u64) -> Result<Filesystem, String> {
        Ok(Filesystem { device, free_bytes })
    }

    fn need(name: &'static str, bytes: u64) -> Need {
        let (path, why) = (PathBuf::from("/p"), "reason".to_owned());
        Need { name, path, bytes, why, is_in_turn: false }
    }

    #[test]
    fn a_backup_needs_one_and_a_half_times_the_database_and_at_least_a_gigabyte() {
        let one = [Some(GB)];
        assert_eq!(bytes(&needs(&appetite(Some(10 * GB), &one)), "disk:backup"), Some(15 * GB));
        assert_eq!(bytes(&needs(&appetite(Some(1000), &one)), "disk:backup"), Some(GB));
        let three = [Some(GB), Some(GB), Some(GB)];
        assert_eq!(bytes(&needs(&appetite(Some(2 * GB), &three)), "disk:backup"), Some(9 * GB));
    }

    #[test]
    fn an_unknown_database_takes_the_minimum_and_no_restore_point_and_says_so() {
        let found = needs(&appetite(None, &[Some(GB)]));
        assert_eq!(bytes(&found, "disk:backup"), Some(GB));
        assert_eq!(bytes(&found, "disk:restorePoint"), None);
        assert!(found[0].why.contains("not known"), "{}", found[0].why);
    }

    #[test]
    fn an_unknown_image_counts_as_four_gigabytes_and_the_largest_counts() {
        assert_eq!(bytes(&needs(&appetite(None, &[None])), "disk:image"), Some(4 * GB));
        let sizes = [Some(GB), Some(3 * GB), Some(2 * GB)];
        assert_eq!(bytes(&needs(&appetite(None, &sizes)), "disk:image"), Some(3 * GB));
        let far = Appetite { data_root: None, ..appetite(None, &[None]) };
        assert_eq!(bytes(&needs(&far), "disk:image"), None);
        assert_eq!(bytes(&needs(&far), "disk:root"), Some(GB / 2));
    }

    #[test]
    fn needs_on_the_same_file_system_add_up() {
        let apart = [(need("a", 2 * GB), on(1, 3 * GB)), (need("b", 2 * GB), on(2, 3 * GB))];
        assert!(weigh(&apart).iter().all(|check| check.passed));
        let together = [(need("a", 2 * GB), on(1, 3 * GB)), (need("b", 2 * GB), on(1, 3 * GB))];
        let checks = weigh(&together);
        assert!(checks.iter().all(|check| !check.passed));
        assert_eq!(
            checks[0].message,
            "/p: need 2.00 GB (reason), 4.00 GB in all on the same file system (a, b), \
             have 3.00 GB, short by 1.00 GB"
        );
        assert_eq!((checks[0].need_bytes, checks[0].have_bytes), (Some(2 * GB), Some(3 * GB)));
    }

    #[test]
    fn a_full_proof_needs_room_for_a_second_database_which_is_gone_before_the_restore_point() {
        let one = [Some(GB)];
        let off = appetite(Some(10 * GB), &one);
        assert_eq!(bytes(&needs(&off), "disk:proof"), None);
        let full = Appetite { proof_dir: Some(Path::new("/db")), ..off.clone() };
        let found = needs(&full);
        assert_eq!(bytes(&found, "disk:proof"), Some(11 * GB));
        assert_eq!(bytes(&found, "disk:restorePoint"), Some(10 * GB));
        let small = Appetite { database_bytes: Some(50_000_000), ..full.clone() };
        assert_eq!(bytes(&needs(&small), "disk:proof"), Some(150_000_000));
        let on_the_databases_disk = |needs: Vec<Need>, free: u64| {
            let looked: Vec<_> = needs
                .into_iter()
                .map(|need| {
                    let device = if need.path == Path::new("/db") { 1 } else { 2 };
                    (need, on(device, if device == 1 { free } else { 1000 * GB }))
                })
                .collect();
            weigh(&looked).iter().all(|check| check.passed)
        };
        assert!(on_the_databases_disk(needs(&off), 10 * GB));
        assert!(!on_the_databases_disk(found.clone(), 10 * GB), "no room for the proof");
        assert!(on_the_databases_disk(found, 11 * GB), "one after the other they fit");
    }

    #[test]
    fn a_file_system_that_cannot_be_looked_at_does_not_pass() {
        let checks = weigh(&[(need("a", 1), Err("permission denied".to_owned()))]);
        assert!(!checks[0].passed && checks[0].message.contains("permission denied"));
    }

    #[test]
    fn what_is_short_never_reads_as_zero() {
        assert_eq!(gb(0), "0.00 MB");
        assert_eq!(gb(1), "0.01 MB");
        assert_eq!(gb(1_500_000_000), "1.50 GB");
    }

    proptest! {
        #[test]
        fn a_check_passes_exactly_when_everything_on_its_file_system_fits(
            wanted in prop::collection::vec((0u64..u64::MAX / 2, 0u64..3), 1..6),
            free in prop::collection::vec(any::<u64>(), 3),
        ) {
            let needs: Vec<_> = wanted
                .iter()
                .map(|(bytes, device)| (need("n", *bytes), on(*device, free[*device as usize])))
                .collect();
            for (check, (_, device)) in weigh(&needs).iter().zip(&wanted) {
                let sum: u128 =
                    wanted.iter().filter(|(_, d)| d == device).map(|(b, _)| u128::from(*b)).sum();
                let fits = sum.min(u128::from(u64::MAX)) <= u128::from(free[*device as usize]);
                prop_assert_eq!(check.passed, fits);
                prop_assert_eq!(check.message.contains("short by"), !fits);
            }
        }
    }
}
