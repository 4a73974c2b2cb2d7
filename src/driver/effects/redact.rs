//! Takes the container's secrets out of text that it wrote itself: its last log lines go into
//! the journal, and an application may print what it was given (I10).

use crate::secret::Secret;

/// Environment keys whose values are secrets, by a part of their name.
const SECRET_KEYS: [&str; 6] = ["PASSWORD", "PASSWD", "SECRET", "KEY", "TOKEN", "CREDENTIAL"];

/// Values shorter than this are not looked for: they would match ordinary words.
const SHORTEST: usize = 6;

/// The values to take out.
pub(super) struct Redactor(Secret<Vec<String>>);

impl Redactor {
    /// Of this environment, `KEY=value` each.
    pub fn of(environment: &[String]) -> Self {
        let mut values: Vec<String> = environment
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .filter(|(key, value)| {
                let key = key.to_ascii_uppercase();
                value.len() >= SHORTEST && SECRET_KEYS.iter().any(|part| key.contains(part))
            })
            .map(|(_, value)| value.to_owned())
            .collect();
        // The longest first: one secret may contain another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(Secret::new(values))
    }

    /// The text without them.
    pub fn clean(&self, text: &str) -> String {
        self.0.expose().iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_environment_are_taken_out_of_log_lines() {
        let redactor = Redactor::of(&[
            "AES_KEY=0123456789abcdef".into(),
            "POSTGRES_PASSWORD=hunter22".into(),
            "POSTGRES_USERNAME=payram".into(),
        ]);
        assert_eq!(
            redactor.clean("connect payram:hunter22@db key 0123456789abcdef"),
            "connect payram:***@db key ***"
        );
    }
}
