//! The commands that the product runs inside a container, answered as their programs would.
//!
//! Recognised by program and statement; what is not recognised ends with 127 and says so, so
//! that a command which the product learns is noticed here. Pure but for the shop it asks.

use std::sync::Arc;

use super::cluster::{Cluster, MAJOR};
use super::inspection::{DATA_DIRECTORY, SERVER};
use super::shop::{CORE, Shop, WEBHOOKS, WORKER};

/// What a command came to.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub code: i64,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ended {
    fn said(out: impl Into<Vec<u8>>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }

    fn failed(code: i64, err: impl Into<String>) -> Self {
        Self { code, out: Vec::new(), err: err.into() }
    }
}

/// Runs a command with this standard input.
pub(super) async fn run(shop: &Arc<Shop>, argv: &[String], input: &[u8]) -> Ended {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["supervisorctl", ..] if shop.is_alone => {
            Ended { code: 4, ..Ended::said("unix:///var/run/supervisor.sock no such file\n") }
        }
        ["supervisorctl", verb, names @ ..] => supervisorctl(shop, verb, names).await,
        [
            "sh",
            "-c",
            _,
            _,
            tool @ ("psql" | "pg_dump" | "pg_restore" | "pg_waldump"),
            _,
            arguments @ ..,
        ] => {
            let Some(cluster) = &shop.cluster else {
                return Ended::failed(
                    2,
                    "connection to server at \"localhost\", port 5432 failed: Connection refused",
                );
            };
            match *tool {
                "psql" if arguments.last() == Some(&"-") => told(cluster, input),
                "psql" => psql(cluster, arguments, shop.sessions()),
                "pg_dump" => cluster.dump().map_or_else(
                    |error| Ended::failed(1, format!("pg_dump: error: {error}")),
                    Ended::said,
                ),
                "pg_waldump" => pg_waldump(cluster, arguments),
                _ => pg_restore(arguments, input),
            }
        }
        ["sh", "-c", script, _, _port] if script.contains("postmaster.pid") => look(shop),
        ["sh", "-c", script, ..] if script.contains("/proc/[0-9]*") => owners(shop),
        _ => Ended::failed(127, format!("the sandbox does not play this command: {words:?}")),
    }
}

async fn supervisorctl(shop: &Arc<Shop>, verb: &str, names: &[&str]) -> Ended {
    if verb == "status" {
        let is_down = shop.programs.states().iter().any(|(_, state)| *state != "RUNNING");
        // 3: some program does not run.
        return Ended { code: if is_down { 3 } else { 0 }, ..Ended::said(shop.programs.status()) };
    }
    if !matches!(verb, "stop" | "start") {
        return Ended::failed(2, format!("*** Unknown syntax: {verb}"));
    }
    // The server stays, whoever is meant by all.
    let all = [CORE, WEBHOOKS, WORKER];
    let names = if names.contains(&"all") { all.as_slice() } else { names };
    let mut ended = Ended::default();
    for name in names {
        let (code, said) = match all.into_iter().find(|one| one == name) {
            Some(name) => change(shop, verb, name).await,
            None => (1, "ERROR (no such process that the sandbox stops or starts)"),
        };
        ended.code = ended.code.max(code);
        ended.out.extend(format!("{name}: {said}\n").into_bytes());
    }
    ended
}

/// Exit code and word of `supervisorctl stop` and `start`.
async fn change(shop: &Arc<Shop>, verb: &str, name: &'static str) -> (i64, &'static str) {
    let runs = shop.programs.while_running(name, || ()).is_some();
    let is_stopped = match (verb, name) {
        ("stop", CORE) => shop.stop_core().await,
        ("stop", _) => shop.programs.stop(name),
        _ if runs => return (0, "ERROR (already started)"),
        (_, CORE) => {
            return if shop.start_core() { (0, "started") } else { (0, "ERROR (already started)") };
        }
        (_, _) => {
            return if shop.start_worker(name) {
                (0, "started")
            } else {
                (7, "ERROR (spawn error)")
            };
        }
    };
    (0, if is_stopped { "stopped" } else { "ERROR (not running)" })
}

/// Answers the last statement; what comes before it sets the session up.
fn psql(cluster: &Cluster, arguments: &[&str], sessions: usize) -> Ended {
    let statement = arguments.last().copied().unwrap_or_default();
    let answer = if statement.starts_with("select pg_database_size") {
        cluster.size().map(|bytes| bytes.to_string())
    } else if statement == "show server_version" {
        Ok(format!("{MAJOR}.0 (sandbox)"))
    } else if statement.contains("pg_control_system()") {
        Ok(cluster.identity(sessions).to_string())
    } else if statement.contains("payram_updater.rows") {
        cluster.fingerprint().map(|found| found.to_string())
    } else if statement.contains("'isReadable'") {
        Ok(cluster.shape().to_string())
    } else if statement.contains("pg_current_wal_flush_lsn()") {
        let from = statement.split_once("<= '").and_then(|(_, rest)| rest.split_once('\''));
        Ok(cluster.stretch(from.map(|(from, _)| from).unwrap_or_default()).to_string())
    } else if statement.contains("'eventTriggers'") {
        let none: [&str; 0] = [];
        Ok(serde_json::json!({"eventTriggers": none, "rules": none, "triggers": none,
                              "references": none})
        .to_string())
    } else if statement.contains("payram_updater.sequences")
        || statement.starts_with("select coalesce(json_agg(oid::bigint)")
    {
        Ok("[]".to_owned())
    } else if statement.starts_with("select case when pg_is_in_recovery()") {
        Ok("role payram may not create databases".to_owned())
    } else if statement == "checkpoint"
        || statement.starts_with("select datname from pg_database")
        || statement.starts_with("select pg_terminate_backend")
    {
        Ok(String::new())
    } else {
        return unknown(statement);
    };
    match answer {
        Ok(text) if text.is_empty() => Ended::default(),
        Ok(text) => Ended::said(format!("{text}\n")),
        Err(error) => Ended::failed(1, format!("ERROR:  could not read file: {error}")),
    }
}

/// Answers a statement, or does what a file of them says, on standard input.
fn told(cluster: &Cluster, input: &[u8]) -> Ended {
    let text = String::from_utf8_lossy(input);
    if text.contains("INSERT INTO") {
        return insert(cluster, &text);
    }
    let (table, since) = (table(&text), transaction(&text));
    let rows = if text.contains("(values (") {
        match keys(&text) {
            Some(keys) => cluster.rows_of(table, &keys, since),
            None => Ok(None),
        }
    } else if text.contains("group by") {
        cluster.weighed_since(table, since)
    } else if text.contains("case when w.why is null") {
        cluster.rows_since(table, since)
    } else if text.contains("cross join lateral") {
        cluster.values_since(table, since)
    } else if text.contains("count(*) from only ") {
        counted(cluster, &text)
    } else {
        Ok(None)
    };
    match rows {
        Ok(Some(rows)) => Ended::said(lines(rows) + "\n"),
        Ok(None) => unknown(&text),
        Err(error) => Ended::failed(1, format!("ERROR:  could not read file: {error}")),
    }
}

/// The keys that an export asks the old version for, `… (values (0, 'KEY'), …) v …`.
fn keys(text: &str) -> Option<Vec<(usize, String)>> {
    let (values, _) = text.split_once("(values (")?.1.split_once(")) v (")?;
    let pairs = values.split("), (").map(|pair| pair.split_once(", "));
    pairs.map(|pair| Some((pair?.0.parse().ok()?, pair?.1.into()))).collect()
}

/// `select (select count(*) from only TABLE …) + (…)`: one number.
fn counted(cluster: &Cluster, text: &str) -> std::io::Result<Option<Vec<serde_json::Value>>> {
    let mut sum = 0;
    for counting in text.split("count(*)").skip(1) {
        match cluster.values_since(table(counting), transaction(counting))? {
            Some(rows) => sum += rows.len(),
            None => return Ok(None),
        }
    }
    Ok(Some(vec![sum.into()]))
}

/// Inserts the payments of a file of statements: a row is a line in brackets.
fn insert(cluster: &Cluster, text: &str) -> Ended {
    let mut rows = Vec::new();
    let mut table = "";
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("INSERT INTO ") {
            table = rest.split(' ').next().unwrap_or_default();
        }
        let Some(row) = line.strip_prefix('(') else { continue };
        let values = row.trim_end_matches([',', ';']).trim_end_matches(')').split(", ");
        let values: Vec<String> = values.map(|value| value.trim_matches('\'').to_owned()).collect();
        match (table, <[String; 3]>::try_from(values)) {
            ("public.payments", Ok(row)) => rows.push(row),
            (_, _) => return unknown(line),
        }
    }
    match cluster.insert(&rows) {
        Ok(Ok(())) => Ended::default(),
        Ok(Err(why)) => Ended::failed(3, format!("ERROR:  {why}")),
        Err(error) => Ended::failed(3, format!("ERROR:  could not write file: {error}")),
    }
}

fn pg_waldump(cluster: &Cluster, arguments: &[&str]) -> Ended {
    let (start, end) = (option(arguments, "--start="), option(arguments, "--end="));
    let managers: Vec<&str> =
        arguments.iter().filter_map(|one| one.strip_prefix("--rmgr=")).collect();
    match cluster.records(start, end, &managers) {
        Ok(lines) => Ended::said(lines.iter().map(|line| format!("{line}\n")).collect::<String>()),
        Err(error) => Ended::failed(1, format!("pg_waldump: error: {error}")),
    }
}

fn option<'a>(arguments: &[&'a str], name: &str) -> &'a str {
    arguments.iter().find_map(|one| one.strip_prefix(name)).unwrap_or_default()
}

/// The number in `age('N'::xid)`.
fn transaction(statement: &str) -> u64 {
    let number = statement.split_once("age('").and_then(|(_, rest)| rest.split_once('\''));
    number.and_then(|(number, _)| number.parse().ok()).unwrap_or(u64::MAX)
}

/// The table in `from only TABLE t` and in `join only TABLE r`.
fn table(statement: &str) -> &str {
    let named = statement.split_once(" only ").and_then(|(_, rest)| rest.split_once(' '));
    named.map(|(name, _)| name).unwrap_or_default()
}

fn unknown(statement: &str) -> Ended {
    let start: String = statement.chars().take(80).collect();
    Ended::failed(1, format!("ERROR:  the sandbox does not play: {start}"))
}

fn lines(rows: Vec<serde_json::Value>) -> String {
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    rows.join("\n")
}

fn pg_restore(arguments: &[&str], input: &[u8]) -> Ended {
    if !input.starts_with(b"PGDMP") {
        return Ended::failed(
            1,
            "pg_restore: error: input file does not appear to be a valid archive",
        );
    }
    if !arguments.contains(&"--list") {
        return Ended::failed(1, "pg_restore: error: the sandbox only lists an archive");
    }
    Ended::said(
        ";\n; Archive created at 2026-01-01 00:00:00 UTC\n;     dbname: payram\n;\n\
         215; 1259 16390 TABLE public payments payram\n\
         216; 1259 16391 TABLE public schema_migrations payram\n\
         3360; 0 16390 TABLE DATA public payments payram\n\
         3361; 0 16391 TABLE DATA public schema_migrations payram\n",
    )
}

/// The owners of the server's processes.
fn owners(shop: &Shop) -> Ended {
    match shop.cluster.as_ref().map(Cluster::owner) {
        Some(Ok(owner)) => Ended::said(format!("{owner}\n")),
        Some(Err(error)) => Ended::failed(1, error.to_string()),
        None => Ended::default(),
    }
}

/// Program, directory, owner, version, arguments of the server.
fn look(shop: &Shop) -> Ended {
    match shop.cluster.as_ref().map(Cluster::owner) {
        Some(Ok(owner)) => Ended::said(format!(
            "{SERVER}\n{DATA_DIRECTORY}\n{owner}\n{MAJOR}\npostgres\n-D\n{DATA_DIRECTORY}\n"
        )),
        Some(Err(error)) => Ended::failed(1, error.to_string()),
        None => Ended::failed(1, "no PostgreSQL server listens"),
    }
}
