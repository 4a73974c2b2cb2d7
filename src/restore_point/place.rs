//! Where a copy lies: one rename away from the directory, and where no container reaches it.
//!
//! A copy beside the directory lies inside of whatever mount holds that one's parent: PayRam's
//! own command mounts it. An entry point that sets owners of all that it finds there, or a clean-up
//! that removes what it does not know, then takes the way back with it. So the copy lies higher
//! up, as near as no mount reaches it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::NAME_MARK;
use super::error::{RestorePointError, io_at};
use super::survey::mount_points;

/// A directory in which a copy can lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub directory: PathBuf,
    /// The mount through which a container reaches it, as a path of this host; none when none
    /// does.
    pub reached_by: Option<PathBuf>,
}

/// What the file system says of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    /// Whether a directory can be made in it.
    is_writable: bool,
}

/// The nearest directory above `source` from which a copy can be put back by a rename and which
/// lies outside of `reached`, the host's paths of all mounts of the containers; where there is
/// none, the one that holds `source`, and what reaches it.
///
/// # Errors
/// [`RestorePointError::Io`] when this host's mounts can't be read.
pub fn place(source: &Path, reached: &[PathBuf]) -> Result<Place, RestorePointError> {
    let beside = source.parent().unwrap_or(source);
    Ok(choose(beside, &above(source)?, reached, &look))
}

/// Every place in which a copy of `source` with this name could lie, whatever reached it then.
///
/// # Errors
/// Those of [`place`].
pub fn places(source: &Path, name: &str) -> Result<Vec<PathBuf>, RestorePointError> {
    Ok(above(source)?.into_iter().map(|directory| directory.join(name)).collect())
}

/// The name of the copy of a directory; `id` is nobody else's.
pub fn copy_name(source: &Path, id: &str) -> String {
    let name = source.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    format!(".{name}{NAME_MARK}{id}")
}

/// The directories above, the nearest first, as far as a rename goes; of a mount point, which none
/// moves, as far as one goes from where it is mounted.
fn above(source: &Path) -> Result<Vec<PathBuf>, RestorePointError> {
    let whole = source.canonicalize().map_err(io_at("resolve", source))?;
    let points = mount_points()?;
    let from = match points.contains(&whole) {
        true => whole.parent().unwrap_or(&whole),
        false => &whole,
    };
    let home = look(from).map(|seen| seen.device);
    let within = points.iter().filter(|point| from.starts_with(point));
    let top = within.max_by_key(|point| point.components().count());
    let is_at_home = |path: &Path| look(path).map(|seen| seen.device) == home;
    Ok(one_rename_away(&whole, top.map(PathBuf::as_path), is_at_home))
}

/// A rename does not leave a mount, even to another one of the same file system (rename(2),
/// `EXDEV`); `top` is the mount point that holds the directory.
fn one_rename_away(
    source: &Path,
    top: Option<&Path>,
    is_same_device: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let is_within = |path: &&Path| top.is_none_or(|top| path.starts_with(top));
    let above = source.ancestors().skip(1).take_while(is_within);
    above.take_while(|path| is_same_device(path)).map(Path::to_owned).collect()
}

fn choose(
    beside: &Path,
    above: &[PathBuf],
    reached: &[PathBuf],
    look: &dyn Fn(&Path) -> Option<Seen>,
) -> Place {
    // By number too: a mount may name the directory in another way.
    let number = |path: &Path| look(path).map(|seen| (seen.device, seen.inode));
    let mounts: Vec<_> = reached.iter().map(|mount| (mount, number(mount))).collect();
    let reached_by = |directory: &Path| {
        let reaches = |(mount, at): &&(&PathBuf, Option<(u64, u64)>)| {
            directory.starts_with(mount)
                || at.is_some() && directory.ancestors().any(|up| number(up) == *at)
        };
        mounts.iter().find(reaches).map(|(mount, _)| (*mount).clone())
    };
    let is_usable = |directory: &&PathBuf| {
        look(directory).is_some_and(|seen| seen.is_writable) && reached_by(directory).is_none()
    };
    if let Some(directory) = above.iter().find(is_usable) {
        return Place { directory: directory.clone(), reached_by: None };
    }
    Place { directory: beside.to_owned(), reached_by: reached_by(beside) }
}

fn look(path: &Path) -> Option<Seen> {
    let meta = std::fs::metadata(path).ok()?;
    let is_writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    Some(Seen { device: meta.dev(), inode: meta.ino(), is_writable })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "/root/payram/db/postgres";

    /// Every path is a directory of its own, but for `/alias`, which is `/root/payram`.
    fn seen(path: &Path) -> Option<Seen> {
        let path = if path == Path::new("/alias") { Path::new("/root/payram") } else { path };
        let inode = path
            .to_string_lossy()
            .bytes()
            .fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Some(Seen { device: 1, inode, is_writable: path != Path::new("/root") })
    }

    fn chosen(reached: &[&str]) -> (String, Option<String>) {
        let above = one_rename_away(Path::new(SOURCE), Some(Path::new("/")), |_| true);
        let reached: Vec<PathBuf> = reached.iter().map(PathBuf::from).collect();
        let found = choose(&above[0], &above, &reached, &seen);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        (text(found.directory), found.reached_by.map(text))
    }

    #[test]
    fn a_copy_lies_beside_the_directory_where_only_the_directory_itself_is_mounted() {
        assert_eq!(chosen(&[SOURCE, "/etc/payram"]), ("/root/payram/db".into(), None));
        // A name that only begins in the same way.
        assert_eq!(chosen(&["/root/payram/d"]), ("/root/payram/db".into(), None));
    }

    #[test]
    fn a_copy_lies_above_every_mount_and_where_it_can_be_made() {
        assert_eq!(chosen(&["/root/payram/db", SOURCE]), ("/root/payram".into(), None));
        // As PayRam's own command does; nothing can be made in /root here.
        assert_eq!(chosen(&["/root/payram", SOURCE]), ("/".into(), None));
        // The same under another name.
        assert_eq!(chosen(&["/alias"]), ("/".into(), None));
    }

    #[test]
    fn where_every_place_is_reached_a_copy_lies_beside_the_directory_and_the_mount_is_named() {
        let found = chosen(&["/var/run", "/"]);
        assert_eq!(found, ("/root/payram/db".into(), Some("/".into())));
    }

    #[test]
    fn no_place_is_beyond_the_mount_or_the_file_system_that_holds_the_directory() {
        let above = |top: &str, device_below: &str| {
            one_rename_away(Path::new(SOURCE), Some(Path::new(top)), |path| {
                path.starts_with(device_below)
            })
        };
        assert_eq!(
            above("/root/payram", "/"),
            [Path::new("/root/payram/db"), Path::new("/root/payram")]
        );
        assert_eq!(above("/", "/root/payram/db"), [Path::new("/root/payram/db")]);
        assert_eq!(above(SOURCE, "/"), Vec::<&Path>::new());
    }
}
