//! Takes the container's secrets out of text that it wrote itself: its last log lines go into
//! the journal, and an application may print what it was given (I10).

use crate::secret::Secret;

/// Ends of environment keys whose values are no secrets, and occur in ordinary text. The value
/// of every other key is taken out: what an operator calls a secret can't be listed.
const PLAIN_KEYS: [&str; 14] = [
    "HOST", "PORT", "USER", "USERNAME", "DATABASE", "DB", "SSLMODE", "PATH", "LANG", "TZ", "HOME",
    "VERSION", "MODE", "LEVEL",
];

/// Values shorter than this are not looked for: they would match ordinary words.
const SHORTEST: usize = 6;

/// The values to take out.
pub(in crate::driver) struct Redactor(Secret<Vec<String>>);

impl Redactor {
    /// Of this environment, `KEY=value` each.
    pub fn of(environment: &[String]) -> Self {
        let mut values: Vec<String> = environment
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .filter(|(key, value)| {
                let key = key.to_ascii_uppercase();
                value.len() >= SHORTEST && !PLAIN_KEYS.iter().any(|end| key.ends_with(end))
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
            "MNEMONIC=twelve words of a wallet".into(),
        ]);
        assert_eq!(
            redactor
                .clean("connect payram:hunter22@db key 0123456789abcdef, twelve words of a wallet"),
            "connect payram:***@db key ***, ***"
        );
    }
}
