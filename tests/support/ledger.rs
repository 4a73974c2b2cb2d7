//! The money of a world: what its database holds, what was acknowledged outside of it, and what
//! is therefore lost.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use super::wait_until;
use super::world::{START_LIMIT, World};

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
        let ids = self.sql(&format!(
            "INSERT INTO payments (id, amount, written_by)
             SELECT gen_random_uuid(), n, 'test' FROM generate_series(1, {count}) n RETURNING id;"
        ));
        let lines: String = ids.lines().map(|id| format!("{id} test\n")).collect();
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.ack_dir().join("acked.log"))
            .expect("the file of acknowledged payments");
        file.write_all(lines.as_bytes()).expect("acknowledged payments");
    }

    /// Ids of the payments in the database.
    pub fn payments(&self) -> HashSet<String> {
        self.sql("SELECT id FROM payments").lines().map(str::to_owned).collect()
    }

    /// Ids of the payments that were acknowledged. A line that is only half written yet is none.
    pub fn acked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.ack_dir().join("acked.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// Acknowledged payments that the database doesn't have: money lost.
    pub fn lost(&self) -> Vec<String> {
        // In this order: what is acknowledged while the database is read is no loss.
        let acked = self.acked();
        let there = self.payments();
        acked.into_iter().filter(|id| !there.contains(id)).collect()
    }

    /// Waits until so many further payments are acknowledged.
    pub fn wait_for_payments(&self, count: usize) {
        let before = self.acked().len();
        wait_until(&format!("{count} further payments"), START_LIMIT, || {
            (self.acked().len() >= before + count).then_some(())
        });
    }
}
