//! A file system of a test's own that can be filled up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of a given size, in memory.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it on a directory that is there.
    pub fn mount(path: PathBuf, size: &str) -> Self {
        let options = format!("size={size},mode=0755");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path));
        Self { path }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes its size: what fills a disk, without using the memory that filling it would take.
    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        run(Command::new("mount").args(["-o", &options]).arg(&self.path));
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.path).expect("a file system");
        space.f_bavail * space.f_frsize
    }

    /// Somebody else's file, which leaves so many bytes free. Answers its path.
    pub fn fill_but(&self, left: u64) -> PathBuf {
        let filler = self.path.join("somebody-elses.bin");
        let file = fs::OpenOptions::new().create(true).append(true).open(&filler).expect("a file");
        let length = file.metadata().expect("its length").len();
        let more = self.free().saturating_sub(left);
        if more == 0 {
            return filler;
        }
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, more)
            .unwrap_or_else(|error| panic!("{} + {more}: {error}", filler.display()));
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A daemon that still writes there must not keep it mounted.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", Path::display(&self.path));
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
