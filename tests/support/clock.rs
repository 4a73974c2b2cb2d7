//! A wall clock that can be set while the daemon runs, for the daemon alone (libfaketime). Its
//! monotonic clock goes on as ever: nobody can set that.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::World;

/// The library that answers for the clock, where there is one.
pub fn library() -> Option<PathBuf> {
    let mut places = vec![PathBuf::from("/usr/lib/faketime")];
    let triplets = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    places.extend(triplets.map(|entry| entry.path().join("faketime")));
    places.into_iter().map(|place| place.join("libfaketime.so.1")).find(|path| path.is_file())
}

/// The clock of one world's daemons.
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, until it is set.
    pub fn of(world: &World) -> Clock {
        let clock = Clock { file: world.path("clock") };
        clock.set("+0");
        clock
    }

    /// Sets it: `-2h` behind, `+1d` ahead of the machine's.
    pub fn set(&self, offset: &str) {
        // At once: a half-written file would be no time.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset}\n")).expect("a time");
        fs::rename(&next, &self.file).expect("a time");
    }

    /// Lets a program live by it.
    pub fn rule(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library().expect("require(\"faketime\") comes first"))
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}
