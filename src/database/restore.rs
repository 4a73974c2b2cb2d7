//! A backup loaded into a database beside the application's, and both renamed in one transaction.
//!
//! Called by the driver's restore, which says when. Until [`rename_both`] the application's own
//! database is only read. Each verb looks first and may be run again after a crash at any instant:
//! databases are told apart by the server's numbers (`pg_database.oid`), which a rename keeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::fingerprint::{counted_rows, in_tables};
use super::prove;
use super::runner::{READING_TIMEOUT, Run, Runner, unique};
use super::scratch::{
    ALIKE, CREATE_TIMEOUT, Creation, NO_SPACE, creation, differences, drop_database,
};
use super::statements;
use super::tool::{Tool, ToolError};
use crate::error::Trouble;
use crate::machine::failure::{Failure, FailureCode};
use crate::restore::{Format, Loaded};

/// The databases from which others are renamed; every cluster has them unless somebody dropped
/// one.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// How often the rename is tried: a session that came in between ends it.
const RENAMES: u32 = 3;

/// How long one attempt may take; the server itself waits 5 s for sessions to end
/// (PostgreSQL, `CountOtherDBBackends`).
const RENAME_WITHIN: Duration = Duration::from_secs(30);

/// How long the sessions of an attempt that was given up may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// How long the planner's statistics may take; without them the first queries are slow.
const ANALYZE_WITHIN: Duration = Duration::from_secs(300);

/// Of the role's own tables: of all others the server would warn, one by one.
const ANALYZE: &str = "do $analyze$ declare one text; begin \
    for one in select format('%I.%I', n.nspname, c.relname) \
      from pg_class c join pg_namespace n on n.oid = c.relnamespace \
      where c.relkind in ('r', 'm') and n.nspname !~ '^pg_' \
        and n.nspname <> 'information_schema' and pg_has_role(c.relowner, 'usage') \
    loop execute 'analyze ' || one; end loop; end $analyze$";

/// How long the rows may be counted that are to be replaced.
const COUNT_WITHIN: Duration = Duration::from_secs(5);

/// Ends sessions by a condition, each on its own: those of a role that may not be touched stay,
/// and what needs them gone says so.
fn ending(condition: &str, rounds: u32) -> String {
    format!(
        "do $end$ declare one int; begin for round in 1..{rounds} loop \
         perform pg_stat_clear_snapshot(); \
         for one in select pid from pg_stat_activity where {condition} \
           and pid <> pg_backend_pid() loop \
           begin perform pg_terminate_backend(one); exception when others then null; end; \
         end loop; \
         exit when {rounds} = 1 or not exists (select from pg_database where {RENAMED}); \
         perform pg_sleep(0.02); end loop; end $end$"
    )
}

/// Replaced by what is still so before the rename.
const RENAMED: &str = "{{still}}";

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn told(error: ToolError, doing: &str) -> Trouble {
    if matches!(&error, ToolError::Ended { said, .. } if said.contains(NO_SPACE)) {
        return Trouble::failed(FailureCode::DiskSpaceLow, format!("{doing}: {error}"));
    }
    error.trouble(doing, FailureCode::RestoreFailed, FailureCode::RestoreFailed)
}

fn fail<T>(code: FailureCode, message: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::failed(code, message))
}

/// Tables and rows of the application's database now; rows none when the time was over first.
pub async fn count_now(runner: &Runner<'_>) -> Result<(u64, Option<u64>), Trouble> {
    let name = &runner.database().name;
    let doing = format!("count the rows of database {name}");
    let tables = in_tables(runner, name).await.map_err(|error| told(error, &doing))?;
    let counted = counted_rows(runner, name, COUNT_WITHIN).await;
    let counted = counted.map_err(|error| told(error, &doing))?;
    let rows = (counted.len() == tables.len()).then(|| counted.iter().sum());
    Ok((tables.len() as u64, rows))
}

/// Whether both names are free on this server; the first that is not.
pub async fn free_names(runner: &Runner<'_>, names: &[&str]) -> Result<Option<String>, Trouble> {
    Ok(standing(runner, names).await?.into_keys().next())
}

/// Loads the backup into a database `made`, of the owner, the encoding and the locale of the
/// application's, with its settings and privileges, and compares what is in it with the backup.
/// What an interrupted attempt left under that name is dropped first.
///
/// # Errors
/// `BACKUP_INVALID` when the file can't be read back or does not hold what it says,
/// `DISK_SPACE_LOW`, `RESTORE_FAILED` with what the server said.
pub async fn load(
    runner: &Runner<'_>,
    made: &str,
    path: &Path,
    format: Format,
    rows: Option<u64>,
    within: Duration,
) -> Result<Loaded, Trouble> {
    let deadline = Instant::now() + within;
    let listed = match format {
        Format::Dump => Some(prove::contents(runner, path, within).await?.tables),
        Format::Sql => None,
    };
    let held = match format {
        Format::Dump => rows,
        Format::Sql => {
            let found = statements::survey(path).await?;
            (found.tables > 0).then_some(found.rows)
        }
    };
    drop_database(runner, made).await?;
    let statement = match creation(runner, made, ALIKE).await? {
        Creation::By(statement) => statement,
        Creation::NotAllowed(reason) => {
            return fail(
                FailureCode::RestoreFailed,
                format!("make a database beside it: {reason}"),
            );
        }
    };
    let doing = format!("make database {made}");
    let created = runner.psql(None, &[&statement], CREATE_TIMEOUT).await;
    created.map_err(|error| told(error, &doing))?;
    take_over(runner, made).await?;
    pour_in(runner, made, path, format, left(deadline)).await?;
    compare(runner, made, path, listed.as_deref(), held, deadline).await
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
}

/// What `pg_dump` does not write down because it belongs to the database itself: its settings, of
/// all roles and of one, its privileges, its limit of connections and its comment. The server
/// writes the statements, so that it quotes by its own rules. Settings that are lists are written
/// as they are stored (PostgreSQL, `variable_is_guc_list_quote`).
async fn take_over(runner: &Runner<'_>, made: &str) -> Result<(), Trouble> {
    let doing = format!("give database {made} what the present one has");
    let statements = belongings(runner, made).await?;
    if statements.is_empty() {
        return Ok(());
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    let given = runner.psql(None, &statements, CREATE_TIMEOUT).await;
    given.map(drop).map_err(|error| told(error, &doing))
}

/// The statements that give it to a database `made`.
pub(super) async fn belongings(runner: &Runner<'_>, made: &str) -> Result<Vec<String>, Trouble> {
    let doing = format!("ask what belongs to the database, for {made}");
    let made = literal(made);
    let ask = format!(
        "with d as (select * from pg_database where datname = current_database()), \
         s as (select r.setrole, left(c, strpos(c, '=') - 1) as name, \
             substr(c, strpos(c, '=') + 1) as value \
           from d join pg_db_role_setting r on r.setdatabase = d.oid, unnest(r.setconfig) c) \
         select format('alter %s set %I = %s', \
             case setrole when 0 then format('database %I', {made}) \
               else format('role %I in database %I', pg_get_userbyid(setrole), {made}) end, \
             name, case when name in ('local_preload_libraries', 'search_path', \
               'session_preload_libraries', 'shared_preload_libraries', 'temp_tablespaces', \
               'unix_socket_directories') then value else quote_literal(value) end) from s \
         union all select format('revoke all on database %I from public', {made}) from d \
           where datacl is not null \
         union all select format('grant %s on database %I to %s%s', privilege_type, {made}, \
             case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end, \
             case when is_grantable then ' with grant option' else '' end) \
           from d, aclexplode(datacl) where grantee <> datdba \
         union all select format('alter database %I connection limit %s', {made}, datconnlimit) \
           from d where datconnlimit <> -1 \
         union all select format('comment on database %I is %L', {made}, \
             shobj_description(oid, 'pg_database')) from d \
           where shobj_description(oid, 'pg_database') is not null"
    );
    // In hex: a value may hold line breaks of its own.
    let ask = format!("select encode(convert_to(q, 'UTF8'), 'hex') from ({ask}) as a(q)");
    let answer = runner.psql(None, &[&ask], READING_TIMEOUT).await;
    let answer = answer.map_err(|error| told(error, &doing))?;
    let mut statements = Vec::new();
    for line in answer.lines() {
        let statement = super::fingerprint::unhex(line).map(String::from_utf8);
        match statement {
            Some(Ok(statement)) => statements.push(statement),
            Some(Err(_)) | None => {
                return fail(
                    FailureCode::RestoreFailed,
                    format!("{doing}: psql answered {line:?}"),
                );
            }
        }
    }
    Ok(statements)
}

/// The whole file, to its first error.
async fn pour_in(
    runner: &Runner<'_>,
    made: &str,
    path: &Path,
    format: Format,
    within: Duration,
) -> Result<(), Trouble> {
    let doing = format!("load {} into database {made}", path.display());
    let application = unique("payram-updater-restore-");
    let (tool, arguments): (Tool, &[&str]) = match format {
        Format::Dump => (
            Tool::PgRestore,
            &["--format=custom", "--exit-on-error", "--no-password", "--dbname", made],
        ),
        Format::Sql => {
            (Tool::Psql, &["-X", "-q", "-A", "-t", "-w", "-1", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        }
    };
    let run = Run {
        tool,
        arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
        database: Some(made),
        application: &application,
        stdin: true,
        timeout: within,
        programs: None,
    };
    let poured = match runner.start(run).await {
        Ok(running) => running.feed(path, &mut |_| {}).await,
        Err(error) => Err(error),
    };
    if poured.is_err() {
        runner.end_sessions(&application).await;
    }
    poured.map_err(|error| told(error, &doing))
}

/// Sees that what is there is what the backup holds.
async fn compare(
    runner: &Runner<'_>,
    made: &str,
    path: &Path,
    listed: Option<&[String]>,
    held: Option<u64>,
    deadline: Instant,
) -> Result<Loaded, Trouble> {
    let doing = format!("compare database {made} with {}", path.display());
    let tables = in_tables(runner, made).await.map_err(|error| told(error, &doing))?;
    let found = listed.map(|listed| differences(listed, &tables)).unwrap_or_default();
    if !found.is_empty() {
        return fail(FailureCode::BackupInvalid, format!("{doing}: {}", found.join("; ")));
    }
    let counted = counted_rows(runner, made, left(deadline)).await;
    let counted = counted.map_err(|error| told(error, &doing))?;
    let rows = (counted.len() == tables.len()).then(|| counted.iter().sum());
    if let (Some(held), Some(rows)) = (held, rows)
        && held != rows
    {
        let message = format!("{doing}: expected {held} rows, found {rows}");
        return fail(FailureCode::BackupInvalid, message);
    }
    // A courtesy: the server would do it by itself in a while.
    let analyze = tokio::time::timeout(ANALYZE_WITHIN.min(left(deadline)), async {
        runner.psql(Some(made), &[ANALYZE], ANALYZE_WITHIN).await
    });
    if let Ok(Err(error)) = analyze.await {
        tracing::warn!(%error, database = %made, "no statistics of the restored database");
    }
    let name = &runner.database().name;
    let numbers = standing(runner, &[name, made]).await?;
    match (numbers.get(name.as_str()), numbers.get(made)) {
        (Some(&present), Some(&made)) => {
            Ok(Loaded { present, made, tables: tables.len() as u64, rows })
        }
        (_, _) => fail(FailureCode::RestoreFailed, format!("{doing}: one of them is gone")),
    }
}

/// Drops a database that a restore made; its name is the job's, so that it is certainly ours.
pub async fn drop_made(runner: &Runner<'_>, made: &str) -> Result<(), Trouble> {
    drop_database(runner, made).await
}

/// Which of these names, each of a restore that has ended, are there.
pub async fn made_leftovers(runner: &Runner<'_>, names: &[String]) -> Result<Vec<String>, Trouble> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    Ok(standing(runner, &names).await?.into_keys().collect())
}

/// Two renames: what serves under `live` gives the name to `coming` and is called `aside`.
#[derive(Clone, Copy, Debug)]
pub struct Renaming<'r> {
    /// The application's name for its database.
    pub live: &'r str,
    /// What the one that has it is called afterwards.
    pub aside: &'r str,
    /// What the one that takes it is called before.
    pub coming: &'r str,
    /// The number of the one that has it.
    pub leaves: u32,
    /// The number of the one that takes it.
    pub comes: u32,
}

/// Renames both in one transaction, ending the sessions of the one that has the name again and
/// again meanwhile: as long as the transaction holds its lock, no further one gets in. Fine when
/// it was done already.
///
/// # Errors
/// `RESTORE_FAILED` when it is certain that nothing was renamed, unknown otherwise.
pub async fn rename_both(runner: &Runner<'_>, renaming: &Renaming<'_>) -> Result<(), Trouble> {
    let Renaming { live, aside, coming, .. } = renaming;
    let doing = format!("rename {live} to {aside} and {coming} to {live}");
    let maintenance = maintenance(runner).await?;
    let mut unmade = Unmade { met: String::new(), is_over: true };
    for _ in 0..RENAMES {
        match stands(runner, renaming).await? {
            Stands::Renamed => return Ok(()),
            Stands::Ready => {}
            Stands::Otherwise(found) => {
                return fail(FailureCode::DatabaseMismatch, format!("{doing}: {found}"));
            }
        }
        let Err(this) = try_rename(runner, renaming, maintenance).await else { continue };
        unmade = this;
    }
    match stands(runner, renaming).await? {
        Stands::Renamed => Ok(()),
        Stands::Ready | Stands::Otherwise(_) => {
            let sessions = sessions(runner, renaming.leaves, maintenance).await;
            let message = format!("{doing}: {}{sessions}", unmade.met);
            let failure = Failure::new(FailureCode::RestoreFailed, message);
            match unmade.is_over {
                true => Err(Trouble::Failed(failure)),
                false => Err(Trouble::Unknown(failure)),
            }
        }
    }
}

/// Where both are.
enum Stands {
    Ready,
    Renamed,
    Otherwise(String),
}

async fn stands(runner: &Runner<'_>, renaming: &Renaming<'_>) -> Result<Stands, Trouble> {
    let names = [renaming.live, renaming.aside, renaming.coming];
    let numbers = standing(runner, &names).await?;
    let of = |name: &str| numbers.get(name).copied();
    let (live, aside, coming) = (of(renaming.live), of(renaming.aside), of(renaming.coming));
    if live == Some(renaming.comes) && aside == Some(renaming.leaves) {
        return Ok(Stands::Renamed);
    }
    if live == Some(renaming.leaves) && coming == Some(renaming.comes) && aside.is_none() {
        return Ok(Stands::Ready);
    }
    let said = |number: Option<u32>| number.map_or("none".to_owned(), |it| it.to_string());
    Ok(Stands::Otherwise(format!(
        "expected {} to be database {} and {} to be {}; found {}, {} and {} for {}",
        renaming.live,
        renaming.leaves,
        renaming.coming,
        renaming.comes,
        said(live),
        said(coming),
        said(aside),
        renaming.aside
    )))
}

/// What an attempt met that was not a rename.
struct Unmade {
    met: String,
    /// Whether it is over: no session of it is left that could still come to its end.
    is_over: bool,
}

async fn try_rename(
    runner: &Runner<'_>,
    renaming: &Renaming<'_>,
    maintenance: &str,
) -> Result<(), Unmade> {
    let application = unique("payram-updater-rename-");
    let of_it = format!("datid = {}", renaming.leaves);
    let still = format!("oid = {} and datname = {}", renaming.leaves, literal(renaming.live));
    let at_first = ending(&of_it, 1).replace(RENAMED, &still);
    // Some 6 s, one more than the server waits.
    let meanwhile = ending(&of_it, 300).replace(RENAMED, &still);
    let first = format!(
        "alter database {} rename to {}",
        identifier(renaming.live),
        identifier(renaming.aside)
    );
    let second = format!(
        "alter database {} rename to {}",
        identifier(renaming.coming),
        identifier(renaming.live)
    );
    let statements = ["begin", &at_first, &first, &second, "commit"];
    let meanwhile = [meanwhile.as_str()];
    let (_, renamed) = tokio::join!(
        runner.psql_as(&application, maintenance, &meanwhile, RENAME_WITHIN),
        runner.psql_as(&application, maintenance, &statements, RENAME_WITHIN),
    );
    let Err(error) = renamed else { return Ok(()) };
    let ended = end_all(runner, &application, maintenance).await;
    Err(Unmade { met: error.to_string(), is_over: ended.is_ok() })
}

/// Ends what an attempt left behind, and waits until it has ended: a transaction that is still
/// there could come to its end later.
async fn end_all(
    runner: &Runner<'_>,
    application: &str,
    maintenance: &str,
) -> Result<(), ToolError> {
    let deadline = Instant::now() + ENDS_WITHIN;
    let ask = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity \
         where application_name = '{application}' and pid <> pg_backend_pid()"
    );
    loop {
        let left = runner.psql(Some(maintenance), &[&ask], READING_TIMEOUT).await?;
        if left.trim() == "0" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let tool = Tool::Psql.name();
            let reason = format!("{left} sessions of the rename did not end");
            return Err(ToolError::Broken { tool, reason });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Who is connected to a database all the same, for a message.
async fn sessions(runner: &Runner<'_>, database: u32, maintenance: &str) -> String {
    let ask = format!(
        "select coalesce(string_agg(distinct format('%s of role %s', \
           coalesce(nullif(application_name, ''), 'a program without a name'), usename), ', '), '') \
         from pg_stat_activity where datid = {database}"
    );
    match runner.psql(Some(maintenance), &[&ask], READING_TIMEOUT).await {
        Ok(found) if !found.trim().is_empty() => format!("; connected to it: {}", found.trim()),
        Ok(_) | Err(_) => String::new(),
    }
}

/// The number of each of these databases that is there.
async fn standing(runner: &Runner<'_>, names: &[&str]) -> Result<BTreeMap<String, u32>, Trouble> {
    let doing = "ask which databases there are";
    let maintenance = maintenance(runner).await?;
    let listed: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let ask = format!(
        "select oid || ' ' || datname from pg_database where datname in ({})",
        listed.join(", ")
    );
    let answer = runner.psql(Some(maintenance), &[&ask], READING_TIMEOUT).await;
    let answer = answer.map_err(|error| unanswered(error, doing))?;
    let numbers = answer.lines().map(|line| {
        let (number, name) = line.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    });
    numbers.collect::<Option<_>>().ok_or_else(|| {
        Trouble::failed(FailureCode::RestoreFailed, format!("{doing}: psql answered {answer:?}"))
    })
}

/// The first of the maintenance databases that lets us in.
async fn maintenance(runner: &Runner<'_>) -> Result<&'static str, Trouble> {
    let mut met = None;
    for name in MAINTENANCE {
        match runner.psql(Some(name), &["select 1"], READING_TIMEOUT).await {
            Ok(_) => return Ok(name),
            Err(error) => met = met.or(Some(error)),
        }
    }
    let doing = format!("connect to database {}", MAINTENANCE.join(" or "));
    Err(met.map_or_else(
        || Trouble::failed(FailureCode::RestoreFailed, doing.clone()),
        |error| unanswered(error, &doing),
    ))
}

/// A server that does not answer says nothing about what was renamed.
fn unanswered(error: ToolError, doing: &str) -> Trouble {
    Trouble::Unknown(told(error, doing).into_failure())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_by_the_servers_rules() {
        assert_eq!(identifier("pay\"ram"), "\"pay\"\"ram\"");
        assert_eq!(literal("pay'ram"), "'pay''ram'");
    }

    #[test]
    fn sessions_are_ended_until_the_database_has_another_name() {
        let once = ending("datid = 5", 1);
        assert!(once.contains("1..1 loop") && once.contains("datid = 5"), "{once}");
        let again = ending("datid = 5", 300).replace(RENAMED, "oid = 5 and datname = 'payram'");
        assert!(again.contains("not exists (select from pg_database where oid = 5"), "{again}");
    }
}
