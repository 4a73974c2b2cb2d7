//! Where this host keeps what a local volume with options of its own holds.
//!
//! The engine mounts such a volume below its own directory while a container uses it, and unmounts
//! it with the last one (`docker volume create --opt`). What is at the mount's `Source` then is an
//! empty directory: whoever works with the volume's files while its containers are stopped needs
//! the place that the options name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an answer is believed: a volume of the same name may have been made anew.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Where the engine says.
    AsTold,
    /// In this directory of the host, which the engine binds there.
    Directory(String),
    /// Nowhere on this host but while a container runs with it.
    WhileMounted,
}

impl Home {
    /// By the answer of `GET /volumes/NAME`.
    pub fn of(volume: &Value) -> Self {
        let option = |key: &str| volume["Options"][key].as_str().unwrap_or_default();
        let is_local = volume["Driver"].as_str().is_none_or(|driver| driver == "local");
        let has_options = volume["Options"].as_object().is_some_and(|all| !all.is_empty());
        // A size alone is a quota (`size`), and mounts nothing.
        let mounts = ["type", "device", "o"].iter().any(|key| !option(key).is_empty());
        if !is_local || !has_options || !mounts {
            return Home::AsTold;
        }
        let is_bind = option("o").split(',').any(|word| matches!(word.trim(), "bind" | "rbind"));
        match option("device") {
            device if is_bind && device.starts_with('/') => Home::Directory(device.to_owned()),
            _ => Home::WhileMounted,
        }
    }

    /// Names it in a mount of an inspection.
    pub fn put_into(&self, source: &mut Value) {
        match self {
            Home::AsTold => {}
            Home::Directory(directory) => *source = Value::from(directory.as_str()),
            Home::WhileMounted => *source = Value::from(""),
        }
    }
}

/// What was asked of volumes a moment ago.
#[derive(Debug, Default)]
pub(super) struct Volumes(Mutex<HashMap<String, (Instant, Home)>>);

impl Volumes {
    pub fn known(&self, name: &str) -> Option<Home> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, home) = known.get(name)?;
        (at.elapsed() < FRESH_FOR).then(|| home.clone())
    }

    pub fn note(&self, name: &str, home: &Home) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < FRESH_FOR);
        known.insert(name.to_owned(), (Instant::now(), home.clone()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_say_where_a_local_volume_is() {
        let home =
            |driver: &str, options: Value| Home::of(&json!({"Driver": driver, "Options": options}));
        let bind = json!({"type": "none", "o": "rw,bind", "device": "/srv/payram"});
        assert_eq!(home("local", bind.clone()), Home::Directory("/srv/payram".into()));
        assert_eq!(home("nfs", bind), Home::AsTold);
        assert_eq!(home("local", Value::Null), Home::AsTold);
        assert_eq!(home("local", json!({"size": "10G"})), Home::AsTold);
        for elsewhere in [
            json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1g"}),
            json!({"type": "nfs", "o": "addr=192.0.2.1", "device": ":/shop"}),
            json!({"type": "ext4", "device": "/dev/sdb1"}),
        ] {
            assert_eq!(home("local", elsewhere), Home::WhileMounted);
        }
    }

    #[test]
    fn what_was_asked_is_known_for_a_while() {
        let volumes = Volumes::default();
        assert_eq!(volumes.known("shop"), None);
        volumes.note("shop", &Home::WhileMounted);
        assert_eq!(volumes.known("shop"), Some(Home::WhileMounted));
    }
}
