//! The money of a world: what its database holds, what was acknowledged outside of it, and what
//! is therefore lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::wait_until;
use super::world::{START_LIMIT, World};

/// The whole contents of a payment as JSON: all columns, whatever a version calls them, and as text
/// what JSON or a time zone would change. The stand-in acknowledges payments by the same expression
/// (tests/fixtures/payram-image/image/payments.py).
const CONTENTS: &str = "(to_jsonb(payments) || jsonb_build_object('amount', amount::text,
    'created_at', (created_at AT TIME ZONE 'UTC')::text))::text";

/// A payment's columns.
type Contents = BTreeMap<String, Value>;

impl World {
    /// Runs SQL in the container, as the database's superuser; rows as `psql -At` prints them.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, with what went wrong.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let mut child = self
            .docker_client()
            .args(["exec", "--interactive", "--user", "postgres", &self.name])
            .args(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "payram"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker starts");
        let written = child.stdin.take().expect("it is piped").write_all(sql.as_bytes());
        let output = child.wait_with_output().expect("docker ends");
        match (output.status.success(), written) {
            (true, Ok(())) => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Adds payments to the database and acknowledges them.
    pub fn add_payments(&self, count: u32) {
        let lines = self.sql(&format!(
            "INSERT INTO payments (id, amount, written_by)
             SELECT gen_random_uuid(), n, 'test' FROM generate_series(1, {count}) n
             RETURNING id || ' test ' || {CONTENTS}"
        ));
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.ack_dir().join("acked.log"))
            .expect("the file of acknowledged payments");
        file.write_all(format!("{lines}\n").as_bytes()).expect("acknowledged payments");
    }

    /// Ids of the payments in the database.
    pub fn payments(&self) -> HashSet<String> {
        self.read_payments("id").lines().map(str::to_owned).collect()
    }

    /// An expression of every payment, in whichever of the application's tables it lies.
    fn read_payments(&self, what: &str) -> String {
        self.sql(&format!(
            "SELECT {what} FROM payments;
             SELECT (to_regclass('payments_ledger') IS NOT NULL)::text AS there \\gset
             \\if :there
             SELECT {what} FROM payments_ledger AS payments;
             \\endif"
        ))
    }

    /// Ids of the payments that were acknowledged.
    pub fn acked(&self) -> Vec<String> {
        let log = self.ack_log("acked.log");
        log.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// A file of what was acknowledged. A line that is only half written yet is none.
    fn ack_log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.ack_dir().join(name)).unwrap_or_default();
        text.rfind('\n').map_or("", |end| &text[..end]).to_owned()
    }

    /// Acknowledged payments that the database doesn't have: money lost.
    pub fn lost(&self) -> Vec<String> {
        // In this order: what is acknowledged while the database is read is no loss.
        let acked = self.acked();
        let there = self.payments();
        acked.into_iter().filter(|id| !there.contains(id)).collect()
    }

    /// Every acknowledged payment whose contents are not, to the last column, those in the served
    /// database: a line each. Prints the checksums of both, in the order of the payments.
    pub fn payments_lost(&self) -> Vec<String> {
        // In this order, as above.
        let log = self.ack_log("acked.log");
        let acked = log.lines().map(|line| {
            contents(line.splitn(3, ' ').nth(2).unwrap_or_else(|| panic!("acked.log: '{line}'")))
        });
        let mut acked: Vec<Contents> = acked.collect();
        acked.sort_by_key(|one| (one["seq"].as_i64(), one["id"].to_string()));
        let served = self.read_payments(CONTENTS);
        let served: HashMap<String, Contents> =
            served.lines().map(contents).map(|one| (one["id"].to_string(), one)).collect();

        let (mut as_acked, mut as_served) = (Sha256::new(), Sha256::new());
        let mut lost = Vec::new();
        for one in &acked {
            // A version that came later may have added columns; those of a failed one go with its
            // schema, and where nothing was in them nothing is lost.
            let there = served.get(&one["id"].to_string());
            let is_empty = |value: &Value| value.is_null() || value.as_str() == Some("");
            let is_kept = |column: &String, value: &Value| {
                there.is_none_or(|found| found.contains_key(column)) || !is_empty(value)
            };
            let one: Contents = one
                .iter()
                .filter(|(column, value)| is_kept(column, value))
                .map(|(column, value)| (column.clone(), value.clone()))
                .collect();
            let found = there.map(|found| -> Contents {
                found.clone().into_iter().filter(|(column, _)| one.contains_key(column)).collect()
            });
            as_acked.update(line_of(&one));
            as_served.update(found.as_ref().map(line_of).unwrap_or_default());
            if found.as_ref() != Some(&one) {
                let found = found.as_ref().map_or("nothing".to_owned(), line_of);
                lost.push(format!("acknowledged {}, served {found}", line_of(&one)));
            }
        }
        println!(
            "{} payments acknowledged, sha256 {}; {} of them lost; as served, sha256 {}",
            acked.len(),
            hex(&as_acked.finalize()),
            lost.len(),
            hex(&as_served.finalize()),
        );
        lost
    }

    /// Indexes of addresses that were handed out, and those of them that were handed out twice.
    pub fn addresses(&self) -> (HashSet<String>, Vec<String>) {
        let log = self.ack_log("addresses.log");
        let mut seen = HashSet::new();
        let numbers = log.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
        let twice = numbers.filter(|number| !seen.insert(number.clone())).collect();
        (seen, twice)
    }

    /// Waits until so many further payments are acknowledged.
    pub fn wait_for_payments(&self, count: usize) {
        let before = self.acked().len();
        wait_until(&format!("{count} further payments"), START_LIMIT, || {
            (self.acked().len() >= before + count).then_some(())
        });
    }
}

fn contents(json: &str) -> Contents {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("a payment: {error}: '{json}'"))
}

/// Columns in the order of their names.
fn line_of(contents: &Contents) -> String {
    serde_json::to_string(contents).expect("JSON")
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
