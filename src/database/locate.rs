//! Where the application's database is, read from the container's environment (contract
//! section 4).
//!
//! Pure: it asks nobody. Called by the driver before anything that touches the database. What
//! it answers is fit to be handed to PostgreSQL's programs in their environment; a value that
//! could mean something else there is refused here, by key and value, never by the password.

use crate::config::PgDefaults;
use crate::machine::failure::{Failure, FailureCode};
use crate::secret::Secret;

/// The port where the environment names a host and no port.
const DEFAULT_PORT: u16 = 5432;

/// The values of `POSTGRES_SSLMODE` (PostgreSQL manual, section 34.19.1).
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The application's database and the way to it.
#[derive(Clone, Debug)]
pub struct Database {
    /// The host as the application calls it; a name, an address or a socket's directory.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database's name.
    pub name: String,
    /// The role.
    pub user: String,
    /// The role's password; empty when there is none.
    pub password: Secret<String>,
    /// `disable` to `verify-full`; none leaves it to PostgreSQL's programs.
    pub sslmode: Option<String>,
    /// Where PostgreSQL's programs run.
    pub access: Access,
}

/// Where PostgreSQL's programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Inside the container, where the database is.
    InContainer,
    /// On this host; the database is elsewhere.
    OnHost,
}

impl Access {
    /// The container's own loopback, or a socket in its file system, is inside it.
    fn of(host: &str) -> Self {
        let is_own = host.eq_ignore_ascii_case("localhost")
            || host == "127.0.0.1"
            || host == "::1"
            || host.starts_with('/');
        if is_own { Access::InContainer } else { Access::OnHost }
    }
}

/// The database that this environment (`KEY=value` each) names, the settings where it does not.
/// An empty value counts as not given, except for the password.
///
/// # Errors
/// `INVALID_DB_CONFIG` with the key, the value and what is allowed.
pub fn locate(env: &[String], pg: &PgDefaults) -> Result<Database, Failure> {
    let host = named(env, &["POSTGRES_HOST"]);
    let port = match (named(env, &["POSTGRES_PORT"]), &host) {
        (Some((key, text)), _) => parse_port(key, text)?,
        (None, Some(_)) => DEFAULT_PORT,
        (None, None) => pg.port,
    };
    if port == 0 {
        return Err(invalid("the database's port is 0; a port is 1 to 65535"));
    }
    let (host_key, host) = host.unwrap_or(("PG_HOST", &pg.host));
    let host = checked_host(host_key, host)?;
    let (key, name) =
        named(env, &["POSTGRES_DATABASE", "POSTGRES_DB"]).unwrap_or(("PG_DB", &pg.database));
    let name = checked(key, name)?;
    let (key, user) =
        named(env, &["POSTGRES_USERNAME", "POSTGRES_USER"]).unwrap_or(("PG_USER", &pg.user));
    let user = checked(key, user)?;
    let password = match value(env, "POSTGRES_PASSWORD") {
        Some(password) => Secret::new(password.to_owned()),
        None => pg.password.clone(),
    };
    if password.expose().contains('\0') {
        return Err(invalid("the database's password contains a NUL character"));
    }
    let sslmode = match named(env, &["POSTGRES_SSLMODE"]) {
        Some((_, mode)) if SSL_MODES.contains(&mode) => Some(mode.to_owned()),
        Some((key, mode)) => {
            return Err(invalid(format!("{key} is {mode:?}; allowed: {}", SSL_MODES.join(", "))));
        }
        None => None,
    };
    Ok(Database { access: Access::of(&host), host, port, name, user, password, sslmode })
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureCode::InvalidDbConfig, message)
}

/// The value of a key; the last of several, as the engine resolves them.
fn value<'e>(env: &'e [String], key: &str) -> Option<&'e str> {
    env.iter()
        .rev()
        .filter_map(|entry| entry.split_once('='))
        .find(|(found, _)| *found == key)
        .map(|(_, value)| value)
}

/// The first of these keys that has a value, and the value.
fn named<'e>(env: &'e [String], keys: &[&'static str]) -> Option<(&'static str, &'e str)> {
    keys.iter().find_map(|key| {
        value(env, key).filter(|value| !value.is_empty()).map(|value| (*key, value))
    })
}

fn parse_port(key: &str, text: &str) -> Result<u16, Failure> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if is_number && port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(invalid(format!("{key} is {text:?}; a port is 1 to 65535"))),
    }
}

/// A value that is not empty and holds no control character.
fn checked(key: &str, text: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Err(invalid(format!("{key} is empty; the database can't be found without it")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{key} is {text:?}; it may not hold control characters")));
    }
    Ok(text.to_owned())
}

/// One host. A list of several is refused: which of them serves would be a guess (I11).
fn checked_host(key: &str, text: &str) -> Result<String, Failure> {
    let text = checked(key, text)?;
    let host = text.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&text);
    if host.chars().any(char::is_whitespace) {
        return Err(invalid(format!("{key} is {text:?}; a host holds no white space")));
    }
    if host.contains(',') {
        return Err(invalid(format!("{key} is {text:?}; several hosts are not supported")));
    }
    let is_path = host.starts_with('/');
    if !is_path && host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err() {
        return Err(invalid(format!(
            "{key} is {text:?}; expected a host alone, the port belongs in POSTGRES_PORT"
        )));
    }
    checked(key, host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn defaults() -> PgDefaults {
        PgDefaults {
            host: "127.0.0.1".into(),
            port: 5433,
            database: "payram".into(),
            user: "payram".into(),
            password: Secret::new("from settings".into()),
        }
    }

    fn env(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn refusal(entries: &[&str]) -> String {
        let failure = locate(&env(entries), &defaults()).expect_err("a refusal");
        assert_eq!(failure.code, FailureCode::InvalidDbConfig);
        failure.message
    }

    #[test]
    fn without_a_word_in_the_environment_the_settings_name_the_database() {
        let database = locate(&[], &defaults()).expect("a database");
        assert_eq!((database.host.as_str(), database.port), ("127.0.0.1", 5433));
        assert_eq!(database.password.expose(), "from settings");
        assert_eq!(database.access, Access::InContainer);
        assert_eq!(database.sslmode, None);
    }

    #[test]
    fn the_environment_wins_and_its_host_brings_the_default_port() {
        let database = locate(
            &env(&[
                "POSTGRES_HOST=db.example.org",
                "POSTGRES_DB=second",
                "POSTGRES_DATABASE=first",
                "POSTGRES_USER=someone",
                "POSTGRES_PASSWORD=a=b",
                "POSTGRES_SSLMODE=require",
            ]),
            &defaults(),
        )
        .expect("a database");
        assert_eq!((database.host.as_str(), database.port), ("db.example.org", 5432));
        assert_eq!((database.name.as_str(), database.user.as_str()), ("first", "someone"));
        assert_eq!(database.password.expose(), "a=b");
        assert_eq!(database.sslmode.as_deref(), Some("require"));
        assert_eq!(database.access, Access::OnHost);
    }

    #[test]
    fn loopback_and_socket_hosts_are_inside_the_container_and_no_others() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "::1", "[::1]", "/var/run/postgresql"] {
            let found = locate(&env(&[&format!("POSTGRES_HOST={host}")]), &defaults());
            assert_eq!(found.expect(host).access, Access::InContainer, "{host}");
        }
        for host in ["db", "127.0.0.2", "10.0.0.5", "fd00::5", "localhost.example.org"] {
            let found = locate(&env(&[&format!("POSTGRES_HOST={host}")]), &defaults());
            assert_eq!(found.expect(host).access, Access::OnHost, "{host}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_refused_by_its_key() {
        for port in ["0", "65536", "-1", "+5432", "54 32", "five"] {
            let said = refusal(&[&format!("POSTGRES_PORT={port}")]);
            assert!(said.contains("POSTGRES_PORT") && said.contains(port), "{said}");
        }
        assert!(refusal(&["POSTGRES_HOST=db:5432"]).contains("POSTGRES_PORT"));
        assert!(refusal(&["POSTGRES_HOST=a,b"]).contains("several hosts"));
        assert!(refusal(&["POSTGRES_DB=two\nlines"]).contains("POSTGRES_DB"));
        assert!(refusal(&["POSTGRES_SSLMODE=maybe"]).contains("verify-full"));
        assert!(refusal(&["POSTGRES_PASSWORD=hun\0ter2"]).find("hun").is_none());
    }

    #[test]
    fn an_empty_name_in_the_settings_is_refused() {
        let nameless = PgDefaults { database: String::new(), ..defaults() };
        let failure = locate(&env(&["POSTGRES_DB="]), &nameless).expect_err("a refusal");
        assert!(failure.message.contains("PG_DB is empty"), "{}", failure.message);
    }

    proptest! {
        #[test]
        fn whatever_the_environment_says_a_database_is_sound_or_refused_without_its_password(
            host in ".{0,20}", port in ".{0,8}", name in ".{0,20}", user in ".{0,20}",
            password in "[!-~]{12,20}", ssl in ".{0,12}", garbage in ".{0,30}",
        ) {
            let env = vec![
                garbage,
                format!("POSTGRES_HOST={host}"),
                format!("POSTGRES_PORT={port}"),
                format!("POSTGRES_DATABASE={name}"),
                format!("POSTGRES_USERNAME={user}"),
                format!("POSTGRES_PASSWORD={password}"),
                format!("POSTGRES_SSLMODE={ssl}"),
            ];
            match locate(&env, &defaults()) {
                Ok(database) => {
                    for text in [&database.host, &database.name, &database.user] {
                        prop_assert!(!text.is_empty() && !text.chars().any(char::is_control));
                    }
                    prop_assert!(database.port > 0);
                    prop_assert_eq!(database.password.expose(), &password);
                    let debugged = format!("{database:?}");
                    prop_assert!(!debugged.contains(&password));
                }
                Err(failure) => {
                    prop_assert_eq!(failure.code, FailureCode::InvalidDbConfig);
                    prop_assert!(!failure.message.contains(&password));
                }
            }
        }
    }
}
