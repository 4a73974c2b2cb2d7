//! A moment as a person types it. Called by the command line's parser.

use crate::clock::Timestamp;

/// A moment as it is typed: RFC 3339, or how long ago.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    let wrong = "a time such as 2026-01-31T12:00:00Z, or how long ago: 90s, 15m, 2h, 3d";
    if let Some(moment) = Timestamp::parse(text) {
        return Ok(moment);
    }
    let ago = || {
        let unit = text.chars().last()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let count: i64 = text.strip_suffix(unit)?.parse().ok().filter(|count| *count >= 0)?;
        count.checked_mul(seconds)?.checked_mul(1000)
    };
    let ago = ago().ok_or_else(|| wrong.to_owned())?;
    Ok(Timestamp::from_millis(Timestamp::now().millis().saturating_sub(ago).max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        assert_eq!(since("2026-01-31T12:00:00Z").map(Timestamp::millis), Ok(1_769_860_800_000));
        let now = Timestamp::now().millis();
        let ago = now - since("2h").expect("two hours").millis();
        assert!((7_199_000..=7_200_000).contains(&ago), "{ago}");
        for bad in ["", "yesterday", "2", "h", "-1h", "2w", "99999999999999999d"] {
            assert!(since(bad).is_err(), "{bad:?}");
        }
    }
}
