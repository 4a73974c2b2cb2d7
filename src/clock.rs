//! The wall clock, as the journal and the API write it.
//!
//! Durations are never computed from it while there is another: a host's clock may be set back in
//! mid-upgrade, so everything that waits uses `tokio::time::Instant`, and what outlives a process
//! is measured by [`uptime`].

use std::sync::OnceLock;
use std::time::Duration;

use time::OffsetDateTime;

use crate::machine::facts::Uptime;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The host's clock, now.
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        Self((now.unix_timestamp_nanos() / 1_000_000) as i64)
    }

    /// From milliseconds since the epoch.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// From RFC 3339, as engines write it; none when it is not.
    pub fn parse(text: &str) -> Option<Self> {
        let at =
            OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        Some(Self((at.unix_timestamp_nanos() / 1_000_000) as i64))
    }

    /// RFC 3339 in UTC, always with three digits of milliseconds, so that texts sort by time:
    /// `2026-01-31T12:00:00.250Z`.
    pub fn rfc3339(self) -> String {
        let t = self.utc();
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        )
    }

    fn utc(self) -> OffsetDateTime {
        let nanos = i128::from(self.0) * 1_000_000;
        // Out of the years that a calendar has: nothing that a clock says.
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// `YYYYMMDD-HHMMSS` in UTC, for file names.
    pub fn compact(self) -> String {
        let t = self.utc();
        format!(
            "{:04}{:02}{:02}-{:02}{:02}{:02}",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }
}

/// How long the host has been up, which no setting of the clock changes; none where it doesn't
/// say.
pub fn uptime() -> Option<Uptime> {
    // As long as the host runs.
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let boot = BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    });
    let up = since_boot()?;
    Some(Uptime { boot: boot.clone()?, millis: i64::try_from(up.as_millis()).ok()? })
}

#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).ok()
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_in_utc() {
        let t = Timestamp::from_millis(1_769_860_800_250);
        assert_eq!(t.rfc3339(), "2026-01-31T12:00:00.250Z");
        assert_eq!(t.compact(), "20260131-120000");
    }
}
