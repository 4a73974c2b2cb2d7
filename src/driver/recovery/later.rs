//! A container that ran on the shop's database after the one that `recover` would start. What it
//! left there an older version may not understand: nothing older is started, and no command that
//! is named leads there.
//!
//! It is known by its own start, which is after the other one's, and by its version. What was
//! removed since can't be seen any more; that is what `sync` is for.

use super::{Decision, Later, Names, Sight};

impl Later {
    /// `payram (2.0.0)`
    pub(super) fn called(&self) -> String {
        match &self.version {
            Some(version) => format!("{} ({version})", self.name),
            None => self.name.clone(),
        }
    }
}

/// The refusal to start anything older; none when nothing newer ran, or when it runs still and is
/// dealt with as such. `why` says what is due without it.
pub(super) fn in_the_way(why: &str, sight: &Sight) -> Option<Decision> {
    refusal(why, sight, |start| format!("{start}, and when it serves: payram-updater sync"))
}

/// The same for an upgrade that is unfinished: it must come to rest before what runs can be kept.
pub(super) fn in_the_way_of_unfinished(why: &str, sight: &Sight) -> Option<Decision> {
    let later = sight.later.as_ref()?;
    let start = format!("{} start {}", sight.names.docker, later.name);
    refusal(why, sight, |_| {
        format!(
            "{start} && payram-updater recover, and when the upgrade has come to rest: payram-updater sync"
        )
    })
}

fn refusal(why: &str, sight: &Sight, go_on: impl FnOnce(String) -> String) -> Option<Decision> {
    let later = sight.later.as_ref().filter(|later| !later.is_running)?;
    let Names { shop, docker, .. } = &sight.names;
    let free = match later.is_shop_taken {
        true => format!("{docker} rename {shop} {shop}-other && "),
        false => String::new(),
    };
    let rename = match later.name == *shop {
        true => String::new(),
        false => format!("{free}{docker} rename {} {shop} && ", later.name),
    };
    let go_on = go_on(format!("{rename}{docker} start {shop}"));
    let found = format!(
        "{why}; container {} ran on the shop's database after {}: an older version may not understand what it left there, so that none is started",
        later.called(),
        later.due_version
    );
    Some(match &later.version {
        Some(_) => Decision::refused(found, format!("to go on with it: {go_on}")),
        None => Decision::refused(
            found,
            format!(
                "find out which version it is: {docker} inspect {}; if it is newer than {}: {go_on}",
                later.name, later.due_version
            ),
        )
        .or_some(later.due_name.as_ref().map(|due| {
            format!(
                "if it is not: {docker} start {due}, and when it serves: payram-updater sync"
            )
        })),
    })
}
