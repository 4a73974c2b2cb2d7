//! `AUTO_UPDATE_WINDOW`: the days and hours, local time, at which an upgrade may begin by itself.
//!
//! `Sat,Sun 02:00-05:00`, `Mon-Fri 22:00-04:00; Sun`, `any`. A span that ends at or before its
//! beginning ends on the next day, and belongs to the day on which it begins. Pure, but for
//! [`Local::at`], which asks the host for its time zone.

use std::fmt;

use crate::clock::Timestamp;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u32 = 24 * 60;
const WEEK_MINUTES: u32 = 7 * DAY_MINUTES;

/// 1970-01-01 was a Thursday.
const EPOCH_DAY: i64 = 3;

/// When upgrades may begin by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// As it was written; empty means any time.
    text: String,
    /// Minutes of the week, from Monday 00:00: begin, and how long.
    spans: Vec<(u32, u32)>,
}

/// A moment as the host's wall clock shows it: minutes since Monday 00:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local(u32);

impl Local {
    /// This moment, in the host's time zone: `TZ`, else `/etc/localtime`, else UTC.
    pub fn at(now: Timestamp) -> Self {
        let seconds = now.millis().div_euclid(1000);
        let zone = match std::env::var("TZ") {
            Ok(name) if !name.is_empty() => tz::TimeZone::from_posix_tz(&name),
            Ok(_) | Err(_) => tz::TimeZone::local(),
        };
        let offset = zone.ok().and_then(|zone| {
            zone.find_local_time_type(seconds).ok().map(|found| i64::from(found.ut_offset()))
        });
        Self::of(seconds + offset.unwrap_or_default())
    }

    /// Seconds since the epoch of a clock that shows local time.
    fn of(seconds: i64) -> Self {
        let day = (seconds.div_euclid(86_400) + EPOCH_DAY).rem_euclid(7);
        let minute = seconds.rem_euclid(86_400) / 60;
        // Below the minutes of a week.
        Self((day * i64::from(DAY_MINUTES) + minute) as u32)
    }
}

impl Window {
    /// Reads a window; none when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("any") {
            return Some(Self::default());
        }
        let mut spans = Vec::new();
        for part in text.split(';') {
            spans.extend(span(part.trim())?);
        }
        Some(Self { text: text.to_owned(), spans })
    }

    /// Whether an upgrade may begin now.
    pub fn is_open(&self, now: Local) -> bool {
        let is_in =
            |(begin, length): &(u32, u32)| (now.0 + WEEK_MINUTES - begin) % WEEK_MINUTES < *length;
        self.spans.is_empty() || self.spans.iter().any(is_in)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "any" } else { &self.text })
    }
}

/// `Sat,Sun 02:00-05:00`, `Sat`, `02:00-05:00`: a begin and a length for each day.
fn span(text: &str) -> Option<Vec<(u32, u32)>> {
    let (days_text, hours_text) = match text.split_once(char::is_whitespace) {
        Some((days_text, hours_text)) => (Some(days_text), Some(hours_text.trim())),
        None if text.contains(':') => (None, Some(text)),
        None => (Some(text), None),
    };
    let days = match days_text {
        Some(text) => days(text)?,
        None => (0..7).collect(),
    };
    let (from, to) = match hours_text {
        Some(text) => hours(text)?,
        None => (0, DAY_MINUTES),
    };
    let length = if to > from { to - from } else { to + DAY_MINUTES - from };
    Some(days.into_iter().map(|day| (day * DAY_MINUTES + from, length)).collect())
}

/// `Sat,Sun`, `Mon-Fri`, `Fri-Mon`
fn days(text: &str) -> Option<Vec<u32>> {
    let day = |name: &str| {
        let found = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()))?;
        u32::try_from(found).ok()
    };
    let mut found = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (day(first)?, day(last)?);
                found.extend((first..=first + (last + 7 - first) % 7).map(|day| day % 7));
            }
            None => found.push(day(part)?),
        }
    }
    Some(found)
}

/// `02:00-05:00`, in minutes of the day. A span of no length is a mistake.
fn hours(text: &str) -> Option<(u32, u32)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (time(from)?, time(to)?);
    (from != to && from < DAY_MINUTES).then_some((from, to))
}

/// `00:00` to `24:00`
fn time(text: &str) -> Option<u32> {
    let (hour, minute) = text.trim().split_once(':')?;
    let digits = |text: &str| -> Option<u32> {
        let is_two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_two.then(|| text.parse().ok())?
    };
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u32, hour: u32, minute: u32) -> Local {
        Local(day * DAY_MINUTES + hour * 60 + minute)
    }

    fn is_open(window: &str, moment: Local) -> bool {
        Window::parse(window).expect(window).is_open(moment)
    }

    #[test]
    fn a_moment_is_a_day_of_the_week_and_a_minute() {
        // 2026-01-31T12:00:00Z was a Saturday.
        assert_eq!(Local::of(1_769_860_800), at(5, 12, 0));
        assert_eq!(Local::of(0), at(3, 0, 0));
        assert_eq!(Local::of(-60), at(2, 23, 59));
    }

    #[test]
    fn days_and_hours_bound_when_it_is_open() {
        for (window, moment, expected) in [
            ("any", at(0, 0, 0), true),
            ("02:00-05:00", at(3, 2, 0), true),
            ("02:00-05:00", at(3, 5, 0), false),
            ("Sat,Sun 02:00-05:00", at(6, 4, 59), true),
            ("Sat,Sun 02:00-05:00", at(0, 3, 0), false),
            ("sat", at(5, 23, 59), true),
            ("Mon-Fri", at(5, 0, 0), false),
            ("Fri-Mon", at(0, 12, 0), true),
            ("Fri-Mon", at(1, 12, 0), false),
            // Over midnight it belongs to the day on which it begins.
            ("Fri 22:00-04:00", at(5, 3, 59), true),
            ("Fri 22:00-04:00", at(4, 3, 0), false),
            // Over the end of the week.
            ("Sun 22:00-04:00", at(0, 3, 0), true),
            ("Mon-Fri 22:00-24:00; Sun", at(6, 12, 0), true),
            ("Mon-Fri 22:00-24:00; Sun", at(0, 22, 30), true),
        ] {
            assert_eq!(is_open(window, moment), expected, "{window} {moment:?}");
        }
        assert_eq!(Window::parse("Sat 02:00-05:00").expect("one").to_string(), "Sat 02:00-05:00");
        assert_eq!(Window::default().to_string(), "any");
    }

    #[test]
    fn what_is_no_window_is_none() {
        for bad in [
            "",
            ";",
            "Sat;",
            "weekend",
            "Sat 2-5",
            "Sat 02:00",
            "02:00-02:00",
            "24:00-02:00",
            "02:00-24:01",
            "02:60-03:00",
            "2:00-5:00",
            "Sat Sun",
            "Sat,",
            "-Sun",
            "Sat 02:00-05:00 x",
            "+2:00-05:00",
        ] {
            assert_eq!(Window::parse(bad), None, "{bad:?}");
        }
    }
}
