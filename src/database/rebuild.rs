//! The shop's database rebuilt from its dump in a cluster of its own: the same encoding and locale,
//! the same roles, the same owner, made by programs of the same image (I14).
//!
//! Called by the driver's rehearsal, which runs the server that this fills: alone, in a container
//! without a network. The shop's server is only read. Of roles only the application's has its
//! password: an ordinary role may not read those of others, and nobody else comes in here.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::fingerprint::{counted_rows, in_tables};
use super::prove;
use super::restore::{belongings, identifier, literal};
use super::runner::{READING_TIMEOUT, Run, Runner, unique};
use super::scratch::{CREATE_TIMEOUT, NO_SPACE, differences, statement_of};
use super::tool::{Tool, ToolError};
use super::{Access, Database};
use crate::error::Trouble;
use crate::machine::failure::FailureCode;
use crate::secret::Secret;

/// The directory in the container in which the cluster is made, and that of its server's socket.
pub const WORKPLACE: &str = "/payram-rehearsal";
const SOCKETS: &str = "/tmp";

/// How long the rows may be counted in the copy.
const COUNT_WITHIN: Duration = Duration::from_secs(30);

/// How long the planner's statistics may take; without them a migration may be slower than it
/// would be in the shop.
const ANALYZE_WITHIN: Duration = Duration::from_secs(300);

/// Makes the cluster, then becomes its server, which nobody reaches but from inside. What a crash
/// would cost is no concern: it would be made again.
const SERVE: &str = "set -e; umask 077; bin=$1; shift; \
    \"$bin/initdb\" --pgdata=/payram-rehearsal --auth=trust --no-sync \"$@\" >/dev/null; \
    exec \"$bin/postgres\" -D /payram-rehearsal -c listen_addresses= \
      -c unix_socket_directories=/tmp -c fsync=off -c synchronous_commit=off \
      -c full_page_writes=off -c autovacuum=off -c archive_mode=off -c lc_messages=C";

/// One row, one JSON object; every role may ask. Roles but the first, which `initdb` makes, and
/// those that every cluster has.
const ASK: &str = "select json_build_object(\
    'superuser', (select rolname from pg_roles where oid = 10), \
    'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype, \
    'checksums', current_setting('data_checksums'), \
    'segmentBytes', pg_size_bytes(current_setting('wal_segment_size')), \
    'roles', (select coalesce(json_agg(format('create role %I %s %s %s %s %s %s %s connection limit %s', \
        rolname, case when rolsuper then 'superuser' else 'nosuperuser' end, \
        case when rolinherit then 'inherit' else 'noinherit' end, \
        case when rolcreaterole then 'createrole' else 'nocreaterole' end, \
        case when rolcreatedb then 'createdb' else 'nocreatedb' end, \
        case when rolcanlogin then 'login' else 'nologin' end, \
        case when rolreplication then 'replication' else 'noreplication' end, \
        case when rolbypassrls then 'bypassrls' else 'nobypassrls' end, \
        rolconnlimit) order by oid), '[]') \
      from pg_roles where oid <> 10 and rolname !~ '^pg_'), \
    'memberships', (select coalesce(json_agg(format('grant %I to %I%s', \
        pg_get_userbyid(roleid), pg_get_userbyid(member), \
        case when admin_option then ' with admin option' else '' end)), '[]') \
      from pg_auth_members where pg_get_userbyid(member) !~ '^pg_'), \
    'settings', (select coalesce(json_agg(format('alter role %I set %I = %s', \
        pg_get_userbyid(setrole), left(c, strpos(c, '=') - 1), \
        case when left(c, strpos(c, '=') - 1) in ('local_preload_libraries', 'search_path', \
          'session_preload_libraries', 'temp_tablespaces') then substr(c, strpos(c, '=') + 1) \
        else quote_literal(substr(c, strpos(c, '=') + 1)) end)), '[]') \
      from pg_db_role_setting, unnest(setconfig) c where setdatabase = 0 and setrole <> 0)) \
    from pg_database where datname = 'template0'";

/// The owner of the application's database; its tablespace stays where it is.
const OWNER: &str = " || format(' owner %I', pg_get_userbyid(datdba))";

/// What a cluster like the shop's is made by.
#[derive(Clone, Debug)]
pub struct Recipe {
    superuser: String,
    /// Of `initdb`.
    arguments: Vec<String>,
    /// Without secrets, in order; the database exists after the first of the two lists.
    roles: Vec<String>,
    creation: String,
    belongings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    superuser: String,
    encoding: String,
    collate: String,
    ctype: String,
    checksums: String,
    segment_bytes: u64,
    roles: Vec<String>,
    memberships: Vec<String>,
    settings: Vec<String>,
}

/// What is in the rebuilt database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Its tables.
    pub tables: u64,
    /// Their rows; none where the time was over before all were counted.
    pub rows: Option<u64>,
}

impl Recipe {
    /// Asks the shop's server, which changes nothing.
    ///
    /// # Errors
    /// `RUNTIME_INSPECTION_FAILED` when it does not say it.
    pub async fn ask(shop: &Runner<'_>) -> Result<Self, Trouble> {
        let doing = "ask how the database's cluster was made";
        let failed = FailureCode::RuntimeInspectionFailed;
        let told = |error: ToolError| error.trouble(doing, failed, failed);
        let unread = |found: String| Trouble::failed(failed, format!("{doing}: {found}"));
        let text = shop.psql(None, &[ASK], READING_TIMEOUT).await.map_err(told)?;
        let answer: Answer = serde_json::from_str(text.trim())
            .map_err(|error| unread(format!("psql's answer is not what was asked for: {error}")))?;
        let name = &shop.database().name;
        let ask = statement_of(name, OWNER);
        let creation = shop.psql(None, &[&ask], READING_TIMEOUT).await.map_err(told)?;
        if creation.is_empty() {
            return Err(unread(format!("there is no database {name}")));
        }
        let belongings = belongings(shop, name).await?;
        Ok(Self { arguments: arguments(&answer), creation, belongings, ..Self::of(answer) })
    }

    fn of(answer: Answer) -> Self {
        let roles = answer.roles.into_iter();
        let roles = roles.chain(answer.memberships).chain(answer.settings);
        Self {
            superuser: answer.superuser,
            arguments: Vec::new(),
            roles: roles.collect(),
            creation: String::new(),
            belongings: Vec::new(),
        }
    }

    /// What a container runs that is to make the cluster in [`WORKPLACE`] and to serve it: entry
    /// point and command. `program` is the shop's server's.
    pub fn command(&self, program: &str) -> (Vec<String>, Vec<String>) {
        let programs = Path::new(program).parent().unwrap_or(Path::new("/usr/bin"));
        let entry = ["sh", "-c", SERVE, "sh"].map(str::to_owned).to_vec();
        let command = [programs.to_string_lossy().into_owned()];
        (entry, command.into_iter().chain(self.arguments.iter().cloned()).collect())
    }

    /// The way to that server for its superuser.
    pub fn as_superuser(&self) -> Database {
        Database {
            host: SOCKETS.to_owned(),
            port: 5432,
            name: "postgres".to_owned(),
            user: self.superuser.clone(),
            password: Secret::new(String::new()),
            sslmode: None,
            access: Access::InContainer,
        }
    }

    /// The same for the application.
    pub fn as_application(&self, shop: &Database) -> Database {
        Database { name: shop.name.clone(), user: shop.user.clone(), ..self.as_superuser() }
    }

    /// Fills a fresh cluster from the dump and compares what is there with what the dump holds.
    ///
    /// # Errors
    /// `BACKUP_INVALID` when the dump can't be restored or a table is missing, `DISK_SPACE_LOW`,
    /// `BACKUP_TIMEOUT`.
    pub async fn fill(
        &self,
        empty: &Runner<'_>,
        shop: &Database,
        dump: &Path,
        within: Duration,
    ) -> Result<Rebuilt, Trouble> {
        let deadline = Instant::now() + within;
        let doing = "make the roles and the database of the copy";
        let statements: Vec<&str> =
            self.roles.iter().chain([&self.creation]).map(String::as_str).collect();
        let made = empty.psql(None, &statements, CREATE_TIMEOUT).await;
        made.map_err(|error| told(error, doing))?;
        give_password(empty, shop).await?;
        let listed = prove::contents(empty, dump, left(deadline)).await?.tables;
        pour_in(empty, &shop.name, dump, left(deadline)).await?;
        let belongings: Vec<&str> = self.belongings.iter().map(String::as_str).collect();
        if !belongings.is_empty() {
            let given = empty.psql(None, &belongings, CREATE_TIMEOUT).await;
            given.map_err(|error| told(error, doing))?;
        }
        let doing = format!("compare the copy with {}", dump.display());
        let tables = in_tables(empty, &shop.name).await.map_err(|error| told(error, &doing))?;
        let differences = differences(&listed, &tables);
        if !differences.is_empty() {
            let found = differences.join("; ");
            return Err(Trouble::failed(FailureCode::BackupInvalid, format!("{doing}: {found}")));
        }
        let counted = counted_rows(empty, &shop.name, COUNT_WITHIN.min(left(deadline))).await;
        let counted = counted.map_err(|error| told(error, &doing))?;
        let rows = (counted.len() == tables.len()).then(|| counted.iter().sum());
        let limit = ANALYZE_WITHIN.min(left(deadline));
        if let Err(error) = empty.psql(Some(&shop.name), &["analyze"], limit).await {
            tracing::warn!(%error, "no statistics of the copy");
        }
        Ok(Rebuilt { tables: tables.len() as u64, rows })
    }
}

/// What `initdb` is told.
fn arguments(answer: &Answer) -> Vec<String> {
    let mut arguments = vec![
        format!("--username={}", answer.superuser),
        format!("--encoding={}", answer.encoding),
        format!("--lc-collate={}", answer.collate),
        format!("--lc-ctype={}", answer.ctype),
        format!("--wal-segsize={}", answer.segment_bytes >> 20),
    ];
    if answer.checksums == "on" {
        arguments.push("--data-checksums".to_owned());
    }
    arguments
}

/// The application's role logs in with what its environment says. The statement travels on standard
/// input (I10).
async fn give_password(empty: &Runner<'_>, shop: &Database) -> Result<(), Trouble> {
    let password = shop.password.expose();
    if password.is_empty() {
        return Ok(());
    }
    // What psql says of a statement quotes it.
    let told = |_error: ToolError| {
        let message = "give the application's role its password in the copy: it was refused";
        Trouble::failed(FailureCode::RuntimeInspectionFailed, message)
    };
    let statement = format!("alter role {} password {}", identifier(&shop.user), literal(password));
    let running = empty.begin_exact(&[], statement.as_bytes(), READING_TIMEOUT).await;
    running.map_err(told)?.collect(64 * 1024).await.map(drop).map_err(told)
}

async fn pour_in(
    empty: &Runner<'_>,
    name: &str,
    dump: &Path,
    within: Duration,
) -> Result<(), Trouble> {
    let application = unique("payram-updater-copy-");
    let arguments = [
        "--format=custom",
        "--exit-on-error",
        "--no-password",
        "--no-publications",
        "--no-subscriptions",
        "--no-security-labels",
        "--no-tablespaces",
        "--dbname",
        name,
    ];
    let run = Run {
        tool: Tool::PgRestore,
        arguments: arguments.map(String::from).into(),
        database: Some(name),
        application: &application,
        stdin: true,
        timeout: within,
        programs: None,
    };
    let doing = format!("rebuild the database from {}", dump.display());
    let poured = match empty.start(run).await {
        Ok(running) => running.feed(dump, &mut |_| {}).await,
        Err(error) => Err(error),
    };
    poured.map_err(|error| told(error, &doing))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
}

fn told(error: ToolError, doing: &str) -> Trouble {
    if matches!(&error, ToolError::Ended { said, .. } if said.contains(NO_SPACE)) {
        return Trouble::failed(FailureCode::DiskSpaceLow, format!("{doing}: {error}"));
    }
    error.trouble(doing, FailureCode::BackupInvalid, FailureCode::BackupTimeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_made_by_the_programs_and_in_the_locale_of_the_shops() {
        let answer: Answer = serde_json::from_str(
            r#"{"superuser": "postgres", "encoding": "UTF8", "collate": "C.UTF-8",
                "ctype": "C.UTF-8", "checksums": "on", "segmentBytes": 16777216,
                "roles": ["create role payram"], "memberships": ["grant a to payram"],
                "settings": []}"#,
        )
        .expect("an answer");
        let arguments = arguments(&answer);
        let recipe = Recipe { arguments, ..Recipe::of(answer) };
        assert_eq!(recipe.roles, ["create role payram", "grant a to payram"]);
        let (entry, command) = recipe.command("/usr/lib/postgresql/15/bin/postgres");
        assert_eq!(entry.first().map(String::as_str), Some("sh"));
        assert_eq!(
            command,
            [
                "/usr/lib/postgresql/15/bin",
                "--username=postgres",
                "--encoding=UTF8",
                "--lc-collate=C.UTF-8",
                "--lc-ctype=C.UTF-8",
                "--wal-segsize=16",
                "--data-checksums",
            ]
        );
    }
}
