//! Whether to look for a new version now. Pure: the clock, the journal and the configuration are
//! given.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::stored::Stored;
use crate::clock::Timestamp;
use crate::config::window::{Local, Window};
use crate::driver::ProbationView;
use crate::journal::JobRecord;

/// Of the interval, at most so much is added, so that shops that began together do not ask
/// together for ever.
const JITTER_PART: u32 = 10;

/// And never more than that.
const JITTER_MOST: Duration = Duration::from_secs(3600);

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The host's clock.
    pub now: Timestamp,
    /// The same as its wall clock shows it.
    pub local: Local,
    /// What the operator decided.
    pub stored: &'a Stored,
    /// When an upgrade may begin.
    pub window: &'a Window,
    /// When was looked last.
    pub last_look: Option<Timestamp>,
    /// The last job that did not only ask for a plan.
    pub last_job: Option<&'a JobRecord>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is off.
    Off,
    /// Nothing before this time.
    NotDue(Timestamp),
    /// A look is due and waits for this, a sentence.
    Waits(String),
    /// Look now.
    Look,
}

/// Decides.
pub fn decide(seen: &Seen<'_>) -> Decision {
    if !seen.stored.enabled {
        return Decision::Off;
    }
    if let Some(last) = seen.last_look {
        let next = next_look(last, seen.stored.interval_hours);
        // A look in the future: the clock was set back since, and says nothing of when it was.
        if seen.now < next && last <= seen.now {
            return Decision::NotDue(next);
        }
    }
    match in_the_way(seen) {
        Some(reason) => Decision::Waits(reason),
        None => Decision::Look,
    }
}

/// When to look again after a look.
pub fn next_look(last: Timestamp, interval_hours: u32) -> Timestamp {
    let interval = Duration::from_secs(u64::from(interval_hours) * 3600);
    let jitter = jitter(last, JITTER_MOST.min(interval / JITTER_PART));
    let millis = (interval + jitter).as_millis();
    Timestamp::from_millis(last.millis().saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)))
}

/// Chance that is the same whenever it is asked for: hosts look at different milliseconds.
fn jitter(last: Timestamp, below: Duration) -> Duration {
    let hash = Sha256::digest(last.millis().to_be_bytes());
    let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let below = u64::try_from(below.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(number.checked_rem(below).unwrap_or_default())
}

fn in_the_way(seen: &Seen<'_>) -> Option<String> {
    if let Some(job) = seen.last_job {
        let target = &job.body.resolved_target;
        if job.is_active() {
            return Some(format!("waits for the upgrade to {target} that is under way"));
        }
        if let Some(code) = job.ending.as_ref().and_then(|ending| ending.failure_code) {
            return Some(format!(
                "does nothing since the last upgrade, to {target}, ended with {code}: upgrade by hand, or payram-updater sync when all is well"
            ));
        }
        if ProbationView::of(job).is_some_and(|probation| probation.until.is_some()) {
            return Some(format!("waits while {target} is still watched"));
        }
    }
    (!seen.window.is_open(seen.local))
        .then(|| format!("waits for its window, {} (local time)", seen.window))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn stored(enabled: bool, hours: u32) -> Stored {
        Stored { enabled, interval_hours: hours, ..Stored::default() }
    }

    fn decided(hours: u32, last: Option<i64>, now: i64) -> Decision {
        decide(&Seen {
            now: Timestamp::from_millis(now),
            local: Local::at(Timestamp::from_millis(now)),
            stored: &stored(true, hours),
            window: &Window::default(),
            last_look: last.map(Timestamp::from_millis),
            last_job: None,
        })
    }

    #[test]
    fn it_is_off_unless_it_was_turned_on() {
        let seen = Seen {
            now: Timestamp::from_millis(0),
            local: Local::at(Timestamp::from_millis(0)),
            stored: &Stored::default(),
            window: &Window::default(),
            last_look: None,
            last_job: None,
        };
        assert_eq!(decide(&seen), Decision::Off);
    }

    #[test]
    fn the_first_look_is_at_once_and_the_next_after_the_interval_and_a_bit() {
        let now = 1_769_860_800_000;
        assert_eq!(decided(24, None, now), Decision::Look);
        for last in [now - 1, now - 23 * HOUR] {
            let Decision::NotDue(next) = decided(24, Some(last), now) else { panic!("{last}") };
            let after = next.millis() - last;
            assert!((24 * HOUR..25 * HOUR).contains(&after), "{after}");
        }
        assert_eq!(decided(24, Some(now - 25 * HOUR), now), Decision::Look);
        assert_eq!(decided(24, Some(now + HOUR), now), Decision::Look, "the clock was set back");
    }

    #[test]
    fn the_bit_is_the_same_whenever_it_is_asked_for_and_another_on_another_host() {
        let at = |millis| next_look(Timestamp::from_millis(millis), 1).millis() - millis - HOUR;
        let bits: Vec<i64> = (0..50).map(|n| at(1_769_860_800_000 + n)).collect();
        assert!(bits.iter().all(|bit| (0..HOUR / 10).contains(bit)), "{bits:?}");
        assert_eq!(at(1_769_860_800_007), bits[7]);
        let mut different = bits.clone();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() > 40, "{bits:?}");
    }

    #[test]
    fn outside_its_window_it_waits_and_says_for_what() {
        let saturday = Timestamp::from_millis(1_769_860_800_000);
        let window = Window::parse("Tue").expect("a window");
        let seen = Seen {
            now: saturday,
            local: Local::at(saturday),
            stored: &stored(true, 24),
            window: &window,
            last_look: None,
            last_job: None,
        };
        let Decision::Waits(reason) = decide(&seen) else { panic!("{:?}", decide(&seen)) };
        assert_eq!(reason, "waits for its window, Tue (local time)");
    }
}
