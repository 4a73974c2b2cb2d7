//! An image to come, as far as the registry or this host tells of it.
//!
//! Filled by `image`, read by the checks of `preflight` and of what is told in the plan.

use serde_json::Value;

/// What is known of an image to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Coming {
    /// Bytes of disk; none when the registry does not say.
    pub disk_bytes: Option<u64>,
    /// Its configuration as an image's: `Env`, `Labels`, …; none when it is not known.
    pub config: Option<Value>,
}

/// The major version of PostgreSQL that an image has, where its configuration tells: as the
/// official image's `PG_MAJOR`, or by the directory of Debian's packages on its PATH.
pub(super) fn postgres_major(config: &Value) -> Option<u32> {
    let list = config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let environment: Vec<(&str, &str)> = list.filter_map(|entry| entry.split_once('=')).collect();
    let value = |key: &str| environment.iter().find(|(name, _)| *name == key).map(|(_, it)| *it);
    let leading = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text.get(..digits)?.parse::<u32>().ok()
    };
    let by_path = || {
        let (_, rest) = value("PATH")?.split_once("/usr/lib/postgresql/")?;
        leading(rest)
    };
    let by_label = || {
        let labels = config["Labels"].as_object()?;
        let is_major = |key: &str| key.contains("postgres") && key.ends_with("major");
        labels.iter().find(|(key, _)| is_major(key)).and_then(|(_, value)| leading(value.as_str()?))
    };
    value("PG_MAJOR").and_then(leading).or_else(by_path).or_else(by_label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn postgresqls_major_is_read_where_an_image_tells_it() {
        let major = |env: &[&str]| postgres_major(&json!({"Env": env}));
        assert_eq!(major(&["PG_MAJOR=17"]), Some(17));
        assert_eq!(major(&["PATH=/usr/bin:/usr/lib/postgresql/15/bin:/bin"]), Some(15));
        assert_eq!(major(&["PATH=/usr/bin"]), None);
        let labelled = json!({"Labels": {"com.payram.postgres.major": "16"}});
        assert_eq!(postgres_major(&labelled), Some(16));
        assert_eq!(postgres_major(&json!(null)), None);
    }
}
